//! Whether all of an image is here: asked before it is offered while the rest cannot be had (protocol.md 8, pitfall 27).
//!
//! A client that is given a manifest and then not a layer fails, or tries again for minutes; one that is given nothing
//! says so at once. Never fetches anything. Files are looked at, but for each image at most once in [`REMEMBERED`].

use std::time::{Duration, Instant};

use super::blobs::Blobs;
use super::error::{CacheError, Missing};
use super::manifests::{Manifests, StoredManifest};
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::{Descriptor, Digest, Manifest, Repository};
use crate::storage::{Opening, Store};

/// How long a judgement holds, unless something is taken away: hundreds of clients may ask for one image every second, and
/// a layer may arrive.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Judgements remembered.
const MAX_REMEMBERED: u64 = 10_000;
/// Indexes may be nested so deep; no image is.
const MAX_DEPTH: usize = 4;
/// Parts of one image that are looked for; one with more counts as incomplete.
const MAX_LOOKS: usize = 10_000;

type Verdict = Option<Missing>;

/// Judges images.
pub struct Completeness {
    manifests: Manifests,
    blobs: Blobs,
    store: Store,
    clock: Clock,
    judged: Memory<(Repository, Digest), Judgement>,
}

#[derive(Clone, Copy)]
struct Judgement {
    at: Instant,
    // Before it was looked for anything.
    opening: Opening,
    verdict: Verdict,
}

impl Completeness {
    /// Looks for parts in `manifests` and `blobs`, which keep them in `store`.
    pub fn new(manifests: Manifests, blobs: Blobs, store: Store, clock: Clock) -> Completeness {
        Completeness { manifests, blobs, store, clock, judged: memory::of_entries(MAX_REMEMBERED) }
    }

    /// What a client that pulls this manifest would miss first, if anything.
    pub async fn missing(&self, repository: &Repository, manifest: &StoredManifest) -> Result<Verdict, CacheError> {
        let (key, at, opening) = ((repository.clone(), manifest.digest), self.clock.tick(), self.store.opening());
        if let Some(before) = self.judged.get(&key)
            && at.saturating_duration_since(before.at) < REMEMBERED
            && before.opening == opening
        {
            return Ok(before.verdict);
        }
        let mut looks = Looks { left: MAX_LOOKS };
        let verdict = self.judge(repository, manifest, &mut looks).await?;
        self.judged.insert(key, Judgement { at, opening, verdict });
        Ok(verdict)
    }

    async fn judge(
        &self,
        repository: &Repository,
        manifest: &StoredManifest,
        looks: &mut Looks,
    ) -> Result<Verdict, CacheError> {
        // It was parsed before it was stored.
        let Ok(top) = Manifest::parse(&manifest.bytes) else { return Ok(Some(Missing::Manifest)) };
        if !top.media_type.is_index() {
            return self.image(repository, &top, looks).await;
        }
        // Which platform a client wants is not known here: one that is whole is enough to offer the index, and the child
        // that the client then asks for is judged by itself. Of none that is whole, the nearest thing to one is told.
        let mut nearest = None;
        let mut open: Vec<(Descriptor, usize)> = children(&top).map(|child| (child.clone(), 1)).collect();
        let mut is_whole = open.is_empty();
        while let Some((child, depth)) = open.pop().filter(|_| !is_whole) {
            let Some(manifest) = self.child(repository, &child.digest, looks).await? else { continue };
            if manifest.media_type.is_index() {
                open.extend(children(&manifest).filter(|_| depth < MAX_DEPTH).map(|child| (child.clone(), depth + 1)));
                continue;
            }
            match self.image(repository, &manifest, looks).await? {
                None => is_whole = true,
                missing => nearest = missing,
            }
        }
        if is_whole {
            self.look_for_attestations(repository, manifest, &top, looks).await?;
            return Ok(None);
        }
        Ok(nearest.or(Some(Missing::Manifest)))
    }

    /// Older clients never ask for attestations, so without them the index is offered all the same; newer ones fail.
    async fn look_for_attestations(
        &self,
        repository: &Repository,
        manifest: &StoredManifest,
        index: &Manifest,
        looks: &mut Looks,
    ) -> Result<(), CacheError> {
        for attestation in index.manifests.iter().filter(|child| child.is_attestation()) {
            let missing = match self.child(repository, &attestation.digest, looks).await? {
                Some(attestation) => self.image(repository, &attestation, looks).await?,
                None => Some(Missing::Manifest),
            };
            if let Some(missing) = missing {
                tracing::warn!(
                    %repository, index = %manifest.digest, attestation = %attestation.digest, %missing,
                    "an index is served without an attestation: Docker 29 will not be able to pull it"
                );
            }
        }
        Ok(())
    }

    async fn image(&self, repository: &Repository, image: &Manifest, looks: &mut Looks) -> Result<Verdict, CacheError> {
        let parts = image.config.iter().map(|config| (config, Missing::Config));
        let parts = parts.chain(image.layers.iter().map(|layer| (layer, Missing::Layer)));
        for (part, missing) in parts.filter(|(part, _)| !part.is_non_distributable()) {
            if !looks.take() || !self.blobs.is_here_or_coming(repository, &part.digest).await? {
                return Ok(Some(missing));
            }
        }
        Ok(None)
    }

    async fn child(
        &self,
        repository: &Repository,
        digest: &Digest,
        looks: &mut Looks,
    ) -> Result<Option<Manifest>, CacheError> {
        if !looks.take() {
            return Ok(None);
        }
        let manifest = match self.manifests.kept(repository, digest).await {
            Ok(manifest) => manifest,
            // It is here and no manifest: nobody can pull it.
            Err(CacheError::NotAManifest { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(manifest.and_then(|manifest| Manifest::parse(&manifest.bytes).ok()))
    }
}

/// What a client may choose from.
fn children(index: &Manifest) -> impl Iterator<Item = &Descriptor> {
    index.manifests.iter().filter(|child| !child.is_attestation())
}

struct Looks {
    left: usize,
}

impl Looks {
    fn take(&mut self) -> bool {
        let has = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has
    }
}
