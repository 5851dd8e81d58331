//! Completing what was cached: the attestations of an index, which older clients never ask for and newer ones fail without.
//!
//! Runs behind the client's back, after it was served. Never fetches another platform: on Docker Hub every manifest that
//! is fetched counts as a pull.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::blobs::Blobs;
use super::error::CacheError;
use super::ledger::OnBehalfOf;
use super::manifests::{Manifests, StoredManifest};
use super::origin::{Origin, Origins};
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::{Digest, Manifest, Repository};
use crate::task;

/// Indexes that are completed at one time, so that most of upstream's connections are left to clients.
const AT_ONCE: usize = 4;
/// Indexes whose state is remembered; one that was forgotten is merely looked at again.
const MAX_REMEMBERED: u64 = 10_000;

#[derive(Clone, Copy)]
enum Attempt {
    Complete,
    Since(Instant),
}

/// Completes indexes. Clones share it.
#[derive(Clone)]
pub struct Completion {
    origins: Origins,
    manifests: Manifests,
    blobs: Blobs,
    clock: Clock,
    retry_after: Duration,
    attempts: Memory<(Repository, Digest), Attempt>,
    places: Arc<Semaphore>,
}

impl Completion {
    /// An index that could not be completed is tried again after `retry_after`, when someone asks for it.
    pub fn new(
        origins: Origins,
        manifests: Manifests,
        blobs: Blobs,
        clock: Clock,
        retry_after: Duration,
    ) -> Completion {
        let (attempts, places) = (memory::of_entries(MAX_REMEMBERED), Arc::new(Semaphore::new(AT_ONCE)));
        Completion { origins, manifests, blobs, clock, retry_after, attempts, places }
    }

    /// Notes that a client was given `manifest`; if it is an index that may lack something, that is fetched.
    pub fn served(&self, repository: &Repository, manifest: &StoredManifest) {
        if !manifest.media_type.is_index() {
            return;
        }
        let key = (repository.clone(), manifest.digest);
        let may_ask = self.origins.origin(repository).is_ok_and(Origin::has_time_for_us);
        if !self.is_due(&key) || !may_ask {
            return;
        }
        self.attempts.insert(key.clone(), Attempt::Since(self.clock.tick()));
        let (this, index) = (self.clone(), manifest.clone());
        task::spawn("completion", async move {
            // Never closed: the semaphore lives as long as any clone.
            let Ok(_place) = this.places.clone().acquire_owned().await else { return };
            match this.complete(&key.0, &index).await {
                Ok(()) => this.attempts.insert(key, Attempt::Complete),
                Err(error) => {
                    tracing::info!(repository = %key.0, digest = %key.1, %error, "an index is not complete yet");
                }
            }
        });
    }

    fn is_due(&self, key: &(Repository, Digest)) -> bool {
        match self.attempts.get(key) {
            None => true,
            Some(Attempt::Complete) => false,
            Some(Attempt::Since(at)) => self.clock.tick().saturating_duration_since(at) >= self.retry_after,
        }
    }

    async fn complete(&self, repository: &Repository, index: &StoredManifest) -> Result<(), CacheError> {
        // It was parsed before it was stored.
        let Ok(index) = Manifest::parse(&index.bytes) else { return Ok(()) };
        let mut first_error = Ok(());
        for attestation in index.manifests.iter().filter(|child| child.is_attestation()) {
            // One that cannot be had is no reason to go without the others.
            let fetched = self.fetch(repository, &attestation.digest).await;
            first_error = first_error.and(fetched);
        }
        first_error
    }

    async fn fetch(&self, repository: &Repository, attestation: &Digest) -> Result<(), CacheError> {
        let (manifest, _) = self.manifests.get(repository, attestation, OnBehalfOf::Completion).await?;
        let Ok(manifest) = Manifest::parse(&manifest.bytes) else { return Ok(()) };
        for blob in manifest.blobs().filter(|blob| !blob.is_non_distributable()) {
            self.blobs.bring(repository, &blob.digest).await?;
        }
        Ok(())
    }
}
