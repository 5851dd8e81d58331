//! How far a backup or a restore is, for whoever wants to watch.

use std::sync::atomic::{AtomicU64, Ordering};

/// Figures that only grow.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    of_bytes: AtomicU64,
}

impl Progress {
    /// Bytes done with, and bytes that there are as far as is known.
    pub fn figures(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.of_bytes.load(Ordering::Relaxed))
    }

    /// So many more bytes are to be done.
    pub(super) fn expect(&self, bytes: u64) {
        self.of_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
