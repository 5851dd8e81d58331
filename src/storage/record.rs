//! What is written down about mutable things: when upstream was asked, and what it said.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// What a tag meant when upstream was last asked about it and said something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// When that was learnt, in seconds since 1970.
    pub at: u64,
}

/// A list of referrers, as upstream sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferrersRecord {
    /// The index, in upstream's own words.
    pub index: String,
    /// When it was fetched, in seconds since 1970.
    pub at: u64,
}
