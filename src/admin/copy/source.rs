//! Where an image is copied from: a repository of ours, or another registry through the cache.

use bytes::Bytes;
use serde_json::Value;

use super::error::{CopyError, MAX_MANIFESTS};
use crate::cache::{Cache, CacheError, OnBehalfOf, Purpose};
use crate::hosted::{Hosted, HostedError};
use crate::oci::{Digest, Manifest, Reference, RepoName, Repository, Tag};

/// Where an image comes from.
pub enum Source<'a> {
    /// From a repository of ours.
    Ours(&'a Hosted, RepoName),
    /// From another registry, for someone.
    Mirrored(&'a Cache, Repository, OnBehalfOf),
}

/// A manifest of it.
pub struct Found {
    /// What its bytes hash to.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub manifest: Manifest,
}

impl Source<'_> {
    /// The manifest that a reference means.
    pub async fn manifest(&self, reference: &Reference) -> Result<Found, CopyError> {
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

    /// The manifest and all below it, each behind what names it.
    pub async fn collect(&self, root: Found) -> Result<Vec<Found>, CopyError> {
        let (mut found, mut next) = (vec![root], 0);
        while let Some(Found { manifest, .. }) = found.get(next) {
            let children: Vec<Digest> = manifest.manifests.iter().map(|child| child.digest).collect();
            for digest in children {
                let child = match found.iter().position(|known| known.digest == digest) {
                    // Named by two: behind both. No manifest names itself, so this ends.
                    Some(known) if known > next => found.remove(known),
                    Some(_) => continue,
                    None => self.manifest(&Reference::Digest(digest)).await?,
                };
                found.push(child);
                if found.len() > MAX_MANIFESTS {
                    return Err(CopyError::TooMany(self.image(&Reference::Digest(found[0].digest))));
                }
            }
            next += 1;
        }
        Ok(found)
    }

    /// What refers to a manifest.
    pub async fn referrers(&self, digest: &Digest) -> Result<Vec<Digest>, CopyError> {
        let image = || Reference::Digest(*digest);
        match self {
            Source::Ours(hosted, name) => {
                let listed = hosted.referrers(name, digest).await.map_err(|reason| self.refused(&image(), reason))?;
                Ok(listed.into_iter().map(|(digest, _)| digest).collect())
            }
            Source::Mirrored(cache, repository, whom) => {
                let list = cache.referrers(repository, digest, *whom).await;
                let list = list.map_err(|reason| CopyError::Source { image: self.image(&image()), reason })?;
                // A list of some days ago is better than none; that there is none now is no knowledge.
                if let Some(stale) = list.stale.filter(|_| list.index.manifests.is_empty()) {
                    return Err(CopyError::Referrers(self.image(&image()), stale));
                }
                let digest = |entry: &Value| entry.get("digest")?.as_str()?.parse().ok();
                Ok(list.index.manifests.iter().filter_map(digest).collect())
            }
        }
    }

    /// What a tag means, if it means something.
    pub async fn tagged(&self, tag: &Tag) -> Result<Option<Found>, CopyError> {
        match self.manifest(&Reference::Tag(tag.clone())).await {
            Ok(found) => Ok(Some(found)),
            Err(CopyError::Source { reason: CacheError::Absent { .. }, .. })
            | Err(CopyError::Hosted { reason: HostedError::NoManifest | HostedError::NoRepository, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that a blob is on disk, and may be had from here.
    pub async fn bring(&self, digest: &Digest) -> Result<(), CopyError> {
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

    /// What people call it.
    pub fn image(&self, reference: &Reference) -> String {
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
