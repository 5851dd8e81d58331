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
    /// Whether a fallback said so, and not the registry itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_fallback: bool,
    /// That the registry has said since then that it has no such tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<AbsentRecord>,
}

impl TagRecord {
    /// What the tag's own registry said at `at`, or a client who pushed.
    pub fn new(digest: Digest, at: u64) -> TagRecord {
        TagRecord { digest, at, is_fallback: false, absent: None }
    }
}

/// What the registry, being well, said of a tag that is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentRecord {
    /// When it first said that there is no such tag, in seconds since 1970.
    pub since: u64,
    /// Whether it has said so again: it is gone.
    pub is_gone: bool,
}

/// Whether anyone may pull from a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRecord {
    /// Whether anyone may.
    pub is_public: bool,
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
