//! Ahead of the client: the config and layers of an image whose manifest a client has just fetched.
//!
//! Docker asks for three layers at a time, and only when it gets to them; by then they are here or on their way. Nothing is
//! fetched for a HEAD, for another platform, or twice.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::blobs::Blobs;
use super::manifests::StoredManifest;
use super::origin::{Origin, Origins};
use crate::memory::{self, Memory};
use crate::oci::{Digest, Manifest, Repository};
use crate::task;

/// Blobs that are fetched ahead at one time, so that some of upstream's connections are left to clients who wait.
const AT_ONCE: usize = 6;
/// Blobs of one manifest that are fetched ahead; the rest waits for its client.
const MAX_BLOBS: usize = 256;

/// Images that are remembered; one that was forgotten is merely looked at again.
const MAX_REMEMBERED: u64 = 10_000;

/// Fetches ahead. Clones share the bound.
#[derive(Clone)]
pub struct Prefetch {
    origins: Origins,
    blobs: Blobs,
    places: Arc<Semaphore>,
    begun: Memory<(Repository, Digest), ()>,
}

impl Prefetch {
    /// Fetches from `origins` through `blobs`.
    pub fn new(origins: Origins, blobs: Blobs) -> Prefetch {
        let (places, begun) = (Arc::new(Semaphore::new(AT_ONCE)), memory::of_entries(MAX_REMEMBERED));
        Prefetch { origins, blobs, places, begun }
    }

    /// Notes that a client is pulling `manifest`.
    pub fn pulled(&self, repository: &Repository, manifest: &StoredManifest) {
        if manifest.media_type.is_index() {
            return;
        }
        let key = (repository.clone(), manifest.digest);
        if self.begun.contains_key(&key) || !self.origins.origin(repository).is_ok_and(Origin::has_time_for_us) {
            return;
        }
        self.begun.insert(key, ());
        // It was parsed before it was stored.
        let Ok(parsed) = Manifest::parse(&manifest.bytes) else { return };
        let wanted = parsed.blobs().filter(|blob| !blob.is_non_distributable()).take(MAX_BLOBS);
        let wanted: Vec<Digest> = wanted.map(|blob| blob.digest).collect();
        let (this, repository) = (self.clone(), repository.clone());
        task::spawn("prefetch", async move {
            for digest in wanted {
                // Never closed: the semaphore lives as long as any clone.
                let Ok(place) = this.places.clone().acquire_owned().await else { return };
                let (blobs, repository) = (this.blobs.clone(), repository.clone());
                task::spawn("prefetch", async move {
                    // A failure is the fill's to tell, and its client's to meet.
                    let _ = blobs.bring(&repository, &digest).await;
                    drop(place);
                });
            }
        });
    }
}
