//! Whose turn it is to change a hosted repository: one at a time in a data directory, whoever asks. Locks nothing but that,
//! and counts the changes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::RepoName;

/// Locks for changes to a repository's manifests and tags; two repositories that share one wait for each other at times.
const LOCKS: usize = 64;

/// All turns.
pub struct Turns {
    hasher: RandomState,
    each: [Lock; LOCKS],
}

#[derive(Default)]
struct Lock {
    turn: Mutex<()>,
    // Changes begun and ended: odd while one is under way.
    changes: AtomicU64,
}

/// A turn, until it is dropped.
pub struct Turn<'a> {
    changes: &'a AtomicU64,
    _guard: MutexGuard<'a, ()>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { hasher: RandomState::new(), each: std::array::from_fn(|_| Lock::default()) }
    }
}

impl Turns {
    /// Waits until nobody else changes this repository, and keeps others from it until the turn is over.
    pub fn wait(&self, name: &RepoName) -> Turn<'_> {
        let lock = self.lock(name);
        let guard = lock.turn.lock().unwrap_or_else(PoisonError::into_inner);
        lock.changes.fetch_add(1, Ordering::SeqCst);
        Turn { changes: &lock.changes, _guard: guard }
    }

    /// A number that stays the same for as long as nobody changes this repository; none while somebody does.
    pub fn unchanged(&self, name: &RepoName) -> Option<u64> {
        let changes = self.lock(name).changes.load(Ordering::SeqCst);
        changes.is_multiple_of(2).then_some(changes)
    }

    fn lock(&self, name: &RepoName) -> &Lock {
        &self.each[self.hasher.hash_one(name) as usize % LOCKS]
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}
