//! What our own small files pass through when they are read, for who writes random ones.

use super::durable;
use super::link::Link;
use super::record::{ReferrersRecord, TagRecord};

/// A link's, a tag's or a list of referrers' file: damaged, or what writing it again gives.
pub fn small_file(bytes: &[u8]) {
    // The checksum would keep everything out that is tried.
    for bytes in [Some(bytes), durable::unsum(bytes)].into_iter().flatten() {
        if let Some(link) = Link::from_json(bytes) {
            assert_eq!(Link::from_json(&link.to_json()), Some(link));
        }
        if let Ok(record) = serde_json::from_slice::<TagRecord>(bytes) {
            let again = serde_json::to_vec(&record).unwrap_or_default();
            assert_eq!(serde_json::from_slice::<TagRecord>(&again).ok(), Some(record));
        }
        if let Ok(record) = serde_json::from_slice::<ReferrersRecord>(bytes) {
            let again = serde_json::to_vec(&record).unwrap_or_default();
            assert_eq!(serde_json::from_slice::<ReferrersRecord>(&again).ok(), Some(record));
        }
    }
}
