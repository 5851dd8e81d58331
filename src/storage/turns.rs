//! Whose turn it is to change a hosted repository: one at a time in a data directory, whoever asks. Locks nothing but that.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::RepoName;

/// Locks for changes to a repository's manifests and tags; two repositories that share one wait for each other at times.
const LOCKS: usize = 64;

/// All turns.
pub struct Turns {
    hasher: RandomState,
    each: [Mutex<()>; LOCKS],
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { hasher: RandomState::new(), each: std::array::from_fn(|_| Mutex::new(())) }
    }
}

impl Turns {
    /// Waits until nobody else changes this repository, and keeps others from it until the guard is dropped.
    pub fn wait(&self, name: &RepoName) -> MutexGuard<'_, ()> {
        let slot = self.hasher.hash_one(name) as usize % LOCKS;
        self.each[slot].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
