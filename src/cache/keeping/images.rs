//! An image brought here whole, for the platforms that are wanted of it. Fetches nothing that is here, and stops when it has
//! no leave any more. Looking is no use of an image.

use std::collections::HashSet;

use super::leave::Leave;
use crate::cache::blobs::Blobs;
use crate::cache::error::CacheError;
use crate::cache::ledger::OnBehalfOf;
use crate::cache::manifests::Manifests;
use crate::cache::parts::Parts;
use crate::oci::{Digest, Manifest, Platform, Reference, Repository};
use crate::storage::{Link, Store};
use crate::task;

/// Manifests of one image; one with more is not brought whole.
const MAX_MANIFESTS: usize = 200;
/// Manifests that are looked at to learn which platforms are pulled here.
const LOOKED_AT: usize = 200;

/// Why an image was not brought here.
pub enum Halt {
    /// There is no leave now.
    NotNow,
    /// It cannot be had.
    Failed(CacheError),
}

impl From<CacheError> for Halt {
    fn from(error: CacheError) -> Halt {
        Halt::Failed(error)
    }
}

/// Brings images. Clones do the same.
#[derive(Clone)]
pub struct Images {
    /// Where they are kept.
    pub store: Store,
    /// Fetches their manifests.
    pub manifests: Manifests,
    /// Fetches the rest.
    pub blobs: Blobs,
    /// Whether what attests to an index's images belongs to it.
    pub with_attestations: bool,
}

impl Images {
    /// The platforms of which something of an image is here.
    pub async fn platforms(&self, repository: &Repository, root: &Digest) -> Vec<Platform> {
        let (store, repository, root) = (self.store.clone(), repository.clone(), *root);
        task::blocking(move || platforms(&store, &repository, &root)).await
    }

    /// The platforms that are pulled here: those of what is cached of the repository; if that is nothing, of anything; if
    /// nothing is, that of this machine.
    pub async fn usual_platforms(&self, repository: &Repository) -> Vec<Platform> {
        let (store, repository) = (self.store.clone(), repository.clone());
        task::blocking(move || {
            let near = pulled(&store, &[repository]);
            let found =
                if near.is_empty() { pulled(&store, &store.index().repositories(None, LOOKED_AT)) } else { near };
            if found.is_empty() { vec![Platform::of_this_machine()] } else { found }
        })
        .await
    }

    /// Brings what is missing of an image for the `wanted` platforms, on leave for what is `pinned`. Says whether anything
    /// was.
    ///
    /// # Errors
    /// It has no leave any more, or something cannot be had; an attestation that cannot be had is none of that.
    pub async fn bring(
        &self,
        repository: &Repository,
        root: &Digest,
        wanted: &[Platform],
        leave: &Leave,
        pinned: &Reference,
    ) -> Result<bool, Halt> {
        let (mut open, mut seen, mut has_fetched) = (vec![(*root, false)], HashSet::new(), false);
        while let Some((digest, is_attestation)) = open.pop() {
            if !seen.insert(digest) || seen.len() > MAX_MANIFESTS {
                continue;
            }
            let manifest = match self.bring_manifest(repository, &digest, leave, pinned, &mut has_fetched).await {
                Err(Halt::Failed(error)) if is_attestation => {
                    tracing::debug!(%repository, %digest, %error, "a pinned image is without an attestation");
                    continue;
                }
                other => other?,
            };
            for child in &manifest.manifests {
                let is_wanted = match &child.platform {
                    _ if child.is_attestation() => self.with_attestations,
                    Some(offered) => wanted.iter().any(|wanted| is_same(wanted, offered)),
                    None => true,
                };
                if is_wanted {
                    open.push((child.digest, child.is_attestation()));
                }
            }
        }
        Ok(has_fetched)
    }

    /// A manifest, with the blobs that it names itself.
    async fn bring_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        leave: &Leave,
        pinned: &Reference,
        has_fetched: &mut bool,
    ) -> Result<Manifest, Halt> {
        let given = async || if leave.is_given(repository, pinned).await { Ok(()) } else { Err(Halt::NotNow) };
        let manifest = match self.manifests.kept(repository, digest).await? {
            Some(manifest) => manifest,
            None => {
                given().await?;
                *has_fetched = true;
                self.manifests.get(repository, digest, OnBehalfOf::Pin).await?.0
            }
        };
        let registry = || repository.registry.clone();
        let manifest = Manifest::parse(&manifest.bytes)
            .map_err(|reason| CacheError::NotAManifest { registry: registry(), reason })?;
        for blob in manifest.blobs().filter(|blob| !blob.is_non_distributable()) {
            if !self.blobs.is_here(repository, &blob.digest).await? {
                given().await?;
                *has_fetched = true;
                self.blobs.bring(repository, &blob.digest).await?;
            }
        }
        Ok(manifest)
    }
}

fn platforms(store: &Store, repository: &Repository, root: &Digest) -> Vec<Platform> {
    let is_here = |digest: &Digest| store.link(repository, digest).is_ok_and(|link| link.is_some());
    Parts::new(store, is_here).look(root).0
}

/// The platforms of what is here of some repositories, tagged or not, as far as [`LOOKED_AT`] manifests tell.
fn pulled(store: &Store, repositories: &[Repository]) -> Vec<Platform> {
    let (mut found, mut left) = (Vec::new(), LOOKED_AT);
    for repository in repositories {
        let links = store.index().links(repository, None, LOOKED_AT).into_iter();
        let manifest = |(digest, link)| match link {
            Link::Manifest { media_type, .. } => Some((digest, media_type.is_index())),
            Link::Blob { .. } => None,
        };
        let manifests: Vec<(Digest, bool)> = links.filter_map(manifest).take(left).collect();
        left -= manifests.len();
        // What an index says of its images counts, and not what they say of themselves.
        let indexes = manifests.iter().filter(|(_, is_index)| *is_index);
        let below: HashSet<Digest> = indexes.flat_map(|(digest, _)| children(store, digest)).collect();
        for (digest, _) in manifests.iter().filter(|(digest, _)| !below.contains(digest)) {
            for platform in platforms(store, repository, digest) {
                if !found.iter().any(|known| is_same(known, &platform)) {
                    found.push(platform);
                }
            }
        }
    }
    found
}

fn children(store: &Store, index: &Digest) -> Vec<Digest> {
    let bytes = store.blob(index).ok().flatten().and_then(|blob| blob.read_all().ok());
    let index = bytes.and_then(|bytes| Manifest::parse(&bytes).ok());
    index.map(|index| index.manifests.iter().map(|child| child.digest).collect()).unwrap_or_default()
}

/// Whether whoever pulled the one would pull the other now. Of Windows' versions the last part changes with each month.
fn is_same(one: &Platform, other: &Platform) -> bool {
    let agree = |one: Option<&str>, other: Option<&str>| one.zip(other).is_none_or(|(one, other)| one == other);
    let build =
        |platform: &'_ Platform| platform.os_version.as_deref().and_then(|it| Some(it.rsplit_once('.')?.0.to_owned()));
    one.os == other.os
        && one.architecture == other.architecture
        && agree(one.variant.as_deref(), other.variant.as_deref())
        && agree(build(one).as_deref(), build(other).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_found_again_in_the_next_index() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(is_same(&platform("linux/arm64"), &platform("linux/arm64/v8")), "an index may say more than a config");
        assert!(is_same(&platform("linux/arm64/v8"), &platform("linux/arm64")));
        assert!(!is_same(&platform("linux/arm/v6"), &platform("linux/arm/v7")));
        assert!(!is_same(&platform("linux/amd64"), &platform("linux/arm64")));
        let windows = |version: &str| Platform { os_version: Some(version.into()), ..platform("windows/amd64") };
        assert!(is_same(&windows("10.0.20348.1906"), &windows("10.0.20348.2031")));
        assert!(!is_same(&windows("10.0.20348.1906"), &windows("10.0.17763.4737")));
    }
}
