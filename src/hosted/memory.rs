//! Manifests that are asked for often, in memory: who asks for one again waits for no disk.
//!
//! Never says what is not so any more: what was read before a repository changed is not given after, and while it is being
//! changed nothing is. So a push or a delete that was acknowledged is seen by everyone.

use super::manifests::StoredManifest;
use crate::memory::{self, Memory};
use crate::oci::{Reference, RepoName};

/// Bytes of manifests held in memory.
const HOT_BYTES: u64 = 64 << 20;
/// What an entry takes besides its manifest, in bytes.
const OVERHEAD: usize = 512;

type Key = (RepoName, Reference);

/// The manifests that are held, each with the state of its repository that it was read in.
pub struct ManifestMemory {
    hot: Memory<Key, (u64, StoredManifest)>,
}

impl ManifestMemory {
    /// Holds nothing yet.
    pub fn new() -> ManifestMemory {
        let weigh =
            |_: &Key, (_, held): &(u64, StoredManifest)| u32::try_from(held.bytes.len() + OVERHEAD).unwrap_or(u32::MAX);
        ManifestMemory { hot: memory::of_weight(HOT_BYTES, weigh) }
    }

    /// What a reference means in a repository that has not changed since `state`.
    pub fn get(&self, name: &RepoName, reference: &Reference, state: u64) -> Option<StoredManifest> {
        let (read_in, held) = self.hot.get(&(name.clone(), reference.clone()))?;
        (read_in == state).then_some(held)
    }

    /// Holds what was read after the repository was in `state`.
    pub fn hold(&self, name: RepoName, reference: Reference, state: u64, found: StoredManifest) {
        self.hot.insert((name, reference), (state, found));
    }
}
