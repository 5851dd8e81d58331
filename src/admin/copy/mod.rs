//! `/api/copy`: an image into a repository of ours, by links and without a second copy of its bytes.
//!
//! What is not here is fetched through the cache first, as for any client. Then come the manifests, leaves first and the
//! tag last, each together with its links: garbage that is collected meanwhile finds nothing to take. A copy that breaks
//! off leaves every tag as it was, and at most manifests without a tag.

mod attached;
mod error;
mod source;

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use self::attached::{Attached, attached};
pub use self::error::CopyError;
use self::source::{Found, Source};
use super::served::{Home, Served};
use crate::cache::OnBehalfOf;
use crate::hosted::{HostedError, NewManifest};
use crate::http::Ours;
use crate::oci::{
    Descriptor, Digest, ImageName, Manifest, NoPlatform, Platform, Reference, RepoName, Tag, chosen, narrowed,
};

/// Blobs that are fetched at one time.
const AT_ONCE: usize = 4;

/// What is to be copied.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    source: String,
    destination: String,
    // None: all of them, and what belongs to them.
    #[serde(default)]
    platforms: Vec<String>,
    // Whether what refers to it comes along.
    #[serde(default)]
    referrers: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    source: String,
    destination: String,
    digest: String,
    manifests: usize,
    // Signatures and the like that came along.
    referrers: usize,
    blobs: usize,
    // Of all blobs together; none of them are on disk twice.
    bytes: u64,
    // Whether this is another manifest than the source's, which lists the chosen platforms alone.
    is_new_index: bool,
}

/// What is to be put where.
pub struct Copy<'a> {
    source: Source<'a>,
    wanted: Reference,
    platforms: Vec<Platform>,
    with_referrers: bool,
    ours: &'a Ours,
    to: RepoName,
    tag: Tag,
}

impl<'a> Copy<'a> {
    /// Reads an order of someone at `client`. Nothing is asked yet.
    ///
    /// # Errors
    /// It makes no sense here.
    pub fn prepare(served: &'a Served, order: &Order, client: IpAddr) -> Result<Copy<'a>, CopyError> {
        let (source, destination): (ImageName, ImageName) = (order.source.parse()?, order.destination.parse()?);
        let platforms =
            order.platforms.iter().map(|text| text.parse()).collect::<Result<Vec<Platform>, NoPlatform>>()?;
        let ours = served.ours.as_ref().ok_or(CopyError::NoRegistry)?;
        if destination.digest.is_some() {
            return Err(CopyError::ToDigest);
        }
        let to = destination.path().filter(|name| ours.access.is_hosted(name));
        let to =
            to.ok_or_else(|| CopyError::NotHosted(order.destination.clone(), ours.access.patterns().join(", ")))?;
        let wanted = source.reference();
        let source = match served.home(&source)? {
            Home::Ours(ours, name) => Source::Ours(&ours.hosted, name),
            Home::Mirrored(repository) => Source::Mirrored(&served.cache, repository, OnBehalfOf::Client(client)),
        };
        let (with_referrers, tag) = (order.referrers, destination.tag_or_latest());
        Ok(Copy { source, wanted, platforms, with_referrers, ours, to, tag })
    }

    /// Does it. When this returns, the tag is durable. Steps are told to `progress` as they are done.
    ///
    /// # Errors
    /// The image cannot be had or put; the tag means what it meant before then.
    pub async fn run(self, progress: &Sender<Value>) -> Result<Copied, CopyError> {
        let root = self.source.manifest(&self.wanted).await?;
        let (root, is_new_index) = self.choose(root).await?;
        self.check_immutable(&root.digest).await?;
        let manifests = self.source.collect(root).await?;
        let attached = if self.with_referrers { attached(&self.source, &manifests).await? } else { Vec::new() };

        let all = || attached.iter().flat_map(|one| &one.manifests).chain(&manifests);
        let mut blobs: Vec<&Descriptor> = all().flat_map(|found| found.manifest.blobs()).collect();
        blobs.retain(|blob| !blob.is_non_distributable());
        blobs.sort_unstable_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let (count, bytes) = (blobs.len(), blobs.iter().map(|blob| blob.size).sum());
        say(progress, json!({"manifests": all().count(), "blobs": count, "bytes": bytes})).await;
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        self.bring(digests, progress).await?;

        // First, so that whoever sees the tag finds what is to be checked of it.
        for Attached { manifests, tag } in &attached {
            self.put_all(manifests, tag.as_ref(), progress).await?;
        }
        let digest = self.put_all(&manifests, Some(&self.tag), progress).await?;
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        let (source, destination) = (self.source.image(&self.wanted), self.destination());
        tracing::info!(source, destination, digest, referrers = attached.len(), "an image was copied");
        let (manifests, referrers) = (manifests.len(), attached.len());
        Ok(Copied { source, destination, digest, manifests, referrers, blobs: count, bytes, is_new_index })
    }

    /// Puts an image, which was found from the root down: leaves first, then the root with its tag. Says what that is.
    async fn put_all(
        &self,
        manifests: &[Found],
        tag: Option<&Tag>,
        progress: &Sender<Value>,
    ) -> Result<Option<Digest>, CopyError> {
        let (mut root, last) = (None, manifests.len().saturating_sub(1));
        for (n, found) in manifests.iter().rev().enumerate() {
            let tags = tag.filter(|_| n == last).cloned().into_iter().collect();
            root = Some(self.put(found, tags, progress).await?);
        }
        Ok(root)
    }

    /// The manifest that gets the tag: the source's own, or that of the one platform, or a new index of several.
    async fn choose(&self, root: Found) -> Result<(Found, bool), CopyError> {
        if self.platforms.is_empty() {
            return Ok((root, false));
        }
        let image = || self.source.image(&self.wanted);
        if !root.manifest.media_type.is_index() {
            return Err(CopyError::OnePlatform(image()));
        }
        let chosen = chosen(&root.manifest, &self.platforms)
            .map_err(|reason| CopyError::NoSuchPlatform { image: image(), reason })?;
        if let [only] = chosen.as_slice() {
            return Ok((self.source.manifest(&Reference::Digest(*only)).await?, false));
        }
        let bytes: Bytes = narrowed(&root.bytes, &chosen).into();
        let manifest = Manifest::parse(&bytes).map_err(|error| CopyError::Manifest(image(), error))?;
        Ok((Found { digest: Digest::sha256(&bytes), bytes, manifest }, true))
    }

    /// A tag that keeps its meaning is refused before anything is fetched for it.
    async fn check_immutable(&self, digest: &Digest) -> Result<(), CopyError> {
        if !self.ours.access.is_immutable(&self.to, &self.tag) {
            return Ok(());
        }
        match self.ours.hosted.manifest(&self.to, &Reference::Tag(self.tag.clone())).await {
            Ok(known) if known.digest != *digest => Err(self.not_put(HostedError::Immutable(self.tag.clone()))),
            Ok(_) | Err(HostedError::NoManifest | HostedError::NoRepository) => Ok(()),
            Err(error) => Err(self.not_put(error)),
        }
    }

    /// Brings every blob here.
    async fn bring(&self, blobs: Vec<Digest>, progress: &Sender<Value>) -> Result<(), CopyError> {
        let bring = |digest: Digest| async move {
            self.source.bring(&digest).await?;
            say(progress, json!({"fetched": digest.to_string()})).await;
            Ok::<_, CopyError>(())
        };
        stream::iter(blobs).map(bring).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Links what a manifest names, and puts it. What was evicted between being fetched and being linked is fetched again.
    async fn put(&self, found: &Found, tags: Vec<Tag>, progress: &Sender<Value>) -> Result<Digest, CopyError> {
        let immutable = tags.iter().filter(|tag| self.ours.access.is_immutable(&self.to, tag)).cloned().collect();
        let new = NewManifest {
            media_type: Some(found.manifest.media_type.to_string()),
            bytes: found.bytes.clone(),
            reference: Reference::Digest(found.digest),
            tags,
            immutable,
            adopts: true,
        };
        let blobs = found.manifest.blobs().count();
        for _ in 0..=blobs {
            match self.ours.hosted.put_manifest(&self.to, new.clone()).await {
                Ok(accepted) => return Ok(accepted.digest),
                Err(HostedError::MissingReference(blob))
                    if found.manifest.blobs().any(|known| known.digest == blob) =>
                {
                    self.bring(vec![blob], progress).await?;
                }
                Err(reason) => return Err(self.not_put(reason)),
            }
        }
        Err(CopyError::Evicted(blobs))
    }

    fn not_put(&self, reason: HostedError) -> CopyError {
        CopyError::Hosted { image: self.destination(), reason }
    }

    fn destination(&self) -> String {
        format!("{}:{}", self.to, self.tag)
    }
}

/// Nobody who listens any more: that is for whoever runs it to notice.
async fn say(progress: &Sender<Value>, step: Value) {
    let _ = progress.send(step).await;
}
