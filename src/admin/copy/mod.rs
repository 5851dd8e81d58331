//! `/api/copy`: an image into a repository of ours, by links and without a second copy of its bytes.
//!
//! What is not here is fetched through the cache first, as for any client. Then come the manifests, leaves first and the
//! tag last, each together with its links: garbage that is collected meanwhile finds nothing to take. A copy that breaks
//! off leaves every tag as it was, and at most manifests without a tag.

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::mpsc::Sender;

use super::served::{Home, Served};
use crate::cache::{Cache, CacheError, OnBehalfOf, Purpose};
use crate::hosted::{Hosted, HostedError, NewManifest};
use crate::http::Ours;
use crate::oci::{
    Descriptor, Digest, ImageName, ImageNameError, Manifest, ManifestError, NoPlatform, NoSuchPlatform, Platform,
    Reference, RepoName, Repository, Tag, chosen, narrowed,
};
use crate::routing::RouteError;

/// Blobs that are fetched at one time.
const AT_ONCE: usize = 4;
/// Manifests of one image, indexes in indexes included.
const MAX_MANIFESTS: usize = 1000;

/// What is to be copied.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    source: String,
    destination: String,
    // None: all of them, and what belongs to them.
    #[serde(default)]
    platforms: Vec<String>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    source: String,
    destination: String,
    digest: String,
    manifests: usize,
    blobs: usize,
    // Of all blobs together; none of them are on disk twice.
    bytes: u64,
    // Whether this is another manifest than the source's, which lists the chosen platforms alone.
    is_new_index: bool,
}

/// Why an image is not copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// Not a name.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// Not a platform.
    #[error(transparent)]
    Platform(#[from] NoPlatform),
    /// There is no private registry.
    #[error("there is no private registry to copy to: the configuration has no [registry]")]
    NoRegistry,
    /// Not one of our names.
    #[error("{0} is not hosted here: copy to a name that one of these patterns of [[registry.repository]] covers: {1}")]
    NotHosted(String, String),
    /// A destination by digest.
    #[error("the destination is a name and a tag: its digest follows from what is copied")]
    ToDigest,
    /// The source is nowhere.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The source cannot be had.
    #[error("{image}: {reason}")]
    Source {
        /// As it was asked for.
        image: String,
        /// Why.
        reason: CacheError,
    },
    /// One of ours cannot be had, or it cannot be put where it should go.
    #[error("{image}: {reason}")]
    Hosted {
        /// Which.
        image: String,
        /// Why.
        reason: HostedError,
    },
    /// The source is no manifest.
    #[error("{0}: {1}")]
    Manifest(String, ManifestError),
    /// There is nothing to choose from.
    #[error("{0} is an image for one platform, so there is none to choose: leave --platform out")]
    OnePlatform(String),
    /// The chosen platform is not in it.
    #[error("{image} {reason}")]
    NoSuchPlatform {
        /// The source.
        image: String,
        /// What there is.
        reason: NoSuchPlatform,
    },
    /// It has no end.
    #[error("{0} has more than {MAX_MANIFESTS} manifests")]
    TooMany(String),
    /// The cache gives them up as fast as they come.
    #[error(
        "{0} blobs were evicted from the cache before they could be linked: is cache.max_size too small for this image?"
    )]
    Evicted(usize),
}

impl CopyError {
    /// How it is answered.
    pub fn status(&self) -> StatusCode {
        match self {
            CopyError::Name(_)
            | CopyError::Platform(_)
            | CopyError::ToDigest
            | CopyError::OnePlatform(_)
            | CopyError::NoSuchPlatform { .. } => StatusCode::BAD_REQUEST,
            CopyError::NotHosted(..) => StatusCode::FORBIDDEN,
            CopyError::NoRegistry => StatusCode::CONFLICT,
            CopyError::Route(RouteError::UnknownNamespace(_)) => StatusCode::NOT_FOUND,
            CopyError::Route(RouteError::Denied(_)) => StatusCode::FORBIDDEN,
            CopyError::Source { reason, .. } => match reason {
                CacheError::Absent { .. } | CacheError::NotMirrored(_) => StatusCode::NOT_FOUND,
                CacheError::Private { .. } => StatusCode::FORBIDDEN,
                CacheError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            CopyError::Hosted { reason, .. } => match reason {
                HostedError::NoRepository | HostedError::NoManifest | HostedError::NoBlob => StatusCode::NOT_FOUND,
                HostedError::Immutable(_) => StatusCode::CONFLICT,
                HostedError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::CONFLICT,
            },
            CopyError::Manifest(..) | CopyError::TooMany(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CopyError::Evicted(_) => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

/// Where an image comes from.
enum Source<'a> {
    Ours(&'a Hosted, RepoName),
    Mirrored(&'a Cache, Repository, OnBehalfOf),
}

struct Found {
    digest: Digest,
    bytes: Bytes,
    manifest: Manifest,
}

impl Source<'_> {
    async fn manifest(&self, reference: &Reference) -> Result<Found, CopyError> {
        let (digest, bytes) = match self {
            Source::Ours(hosted, name) => {
                let reason = |reason| self.refused(reference, reason);
                let stored = hosted.manifest(name, reference).await.map_err(reason)?;
                (stored.digest, stored.bytes)
            }
            Source::Mirrored(cache, repository, whom) => {
                let answer = cache.manifest(repository, reference, Purpose::Look, *whom).await;
                let answer = answer.map_err(|reason| CopyError::Source { image: self.image(reference), reason })?;
                (answer.manifest.digest, answer.manifest.bytes)
            }
        };
        let manifest = Manifest::parse(&bytes).map_err(|error| CopyError::Manifest(self.image(reference), error))?;
        Ok(Found { digest, bytes, manifest })
    }

    /// Sees to it that a blob is on disk, and may be had from here.
    async fn bring(&self, digest: &Digest) -> Result<(), CopyError> {
        match self {
            Source::Ours(hosted, name) => {
                let size = hosted.blob_size(name, digest).await;
                size.map(|_size| ()).map_err(|reason| self.refused(&Reference::Digest(*digest), reason))
            }
            Source::Mirrored(cache, repository, _) => {
                let blob = async { cache.blob(repository, digest, None).await?.kept().await };
                let image = || self.image(&Reference::Digest(*digest));
                blob.await.map_err(|reason| CopyError::Source { image: image(), reason })
            }
        }
    }

    fn refused(&self, reference: &Reference, reason: HostedError) -> CopyError {
        CopyError::Hosted { image: self.image(reference), reason }
    }

    fn image(&self, reference: &Reference) -> String {
        let joint = match reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        match self {
            Source::Ours(_, name) => format!("{name}{joint}{reference}"),
            Source::Mirrored(_, repository, _) => format!("{repository}{joint}{reference}"),
        }
    }
}

/// What is to be put where.
pub struct Copy<'a> {
    source: Source<'a>,
    wanted: Reference,
    platforms: Vec<Platform>,
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
        Ok(Copy { source, wanted, platforms, ours, to, tag: destination.tag_or_latest() })
    }

    /// Does it. When this returns, the tag is durable. Steps are told to `progress` as they are done.
    ///
    /// # Errors
    /// The image cannot be had or put; the tag means what it meant before then.
    pub async fn run(self, progress: &Sender<Value>) -> Result<Copied, CopyError> {
        let root = self.source.manifest(&self.wanted).await?;
        let (root, is_new_index) = self.choose(root).await?;
        self.check_immutable(&root.digest).await?;
        let manifests = self.collect(root).await?;

        let mut blobs: Vec<&Descriptor> = manifests.iter().flat_map(|found| found.manifest.blobs()).collect();
        blobs.retain(|blob| !blob.is_non_distributable());
        blobs.sort_unstable_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let (count, bytes) = (blobs.len(), blobs.iter().map(|blob| blob.size).sum());
        say(progress, json!({"manifests": manifests.len(), "blobs": count, "bytes": bytes})).await;
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        self.bring(digests, progress).await?;

        let (mut digest, last) = (None, manifests.len().saturating_sub(1));
        // They were found from the root down.
        for (n, found) in manifests.iter().rev().enumerate() {
            let tags = if n == last { vec![self.tag.clone()] } else { Vec::new() };
            digest = Some(self.put(found, tags, progress).await?);
        }
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        let (source, destination) = (self.source.image(&self.wanted), self.destination());
        tracing::info!(source, destination, digest, "an image was copied");
        Ok(Copied { source, destination, digest, manifests: manifests.len(), blobs: count, bytes, is_new_index })
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

    /// The manifest and all below it, each behind what names it.
    async fn collect(&self, root: Found) -> Result<Vec<Found>, CopyError> {
        let (mut found, mut next) = (vec![root], 0);
        while let Some(Found { manifest, .. }) = found.get(next) {
            let children: Vec<Digest> = manifest.manifests.iter().map(|child| child.digest).collect();
            for digest in children {
                let child = match found.iter().position(|known| known.digest == digest) {
                    // Named by two: behind both. No manifest names itself, so this ends.
                    Some(known) if known > next => found.remove(known),
                    Some(_) => continue,
                    None => self.source.manifest(&Reference::Digest(digest)).await?,
                };
                found.push(child);
                if found.len() > MAX_MANIFESTS {
                    return Err(CopyError::TooMany(self.source.image(&self.wanted)));
                }
            }
            next += 1;
        }
        Ok(found)
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
