//! Keeps a popular blob from being recorded as used ten thousand times a second. May forget, never invents.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::oci::Digest;

use super::apply::RECENCY_GRAIN;

const SLOTS: usize = 4096;

/// Remembers, for some recently used digests, in which minute that was.
pub(super) struct Recency {
    slots: Box<[AtomicU64]>,
}

impl Recency {
    pub(super) fn new() -> Recency {
        Recency { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether this use is news: false only if the same blob was used in the same minute. Costs no lock; the slot that a
    /// digest shares with others belongs to whichever came last.
    pub(super) fn is_news(&self, digest: &Digest, at: u64) -> bool {
        let hash = digest.bytes().first_chunk().map_or(0, |start| u64::from_le_bytes(*start));
        // Never zero, which is an empty slot.
        let use_ = (hash ^ (at / RECENCY_GRAIN).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        let slot = &self.slots[hash as usize % SLOTS];
        slot.load(Ordering::Relaxed) != use_ && slot.swap(use_, Ordering::Relaxed) != use_
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_news_once_a_minute() {
        let (recency, one, other) = (Recency::new(), Digest::sha256(b"1"), Digest::sha256(b"2"));
        assert!(recency.is_news(&one, 600));
        assert!(!recency.is_news(&one, 659));
        assert!(recency.is_news(&other, 600));
        assert!(recency.is_news(&one, 660));
        assert!(recency.is_news(&one, 600), "a clock that was set back");
    }
}
