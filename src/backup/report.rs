//! What a backup or a restore came to.

use serde::Serialize;

/// An image that is not whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// Whose.
    pub repository: String,
    /// A tag, a digest, or a file.
    pub image: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a backup has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Repositories of ours in it.
    pub repositories: u64,
    /// Their manifests and indexes.
    pub manifests: u64,
    /// Their tags.
    pub tags: u64,
    /// Patterns that the operator pinned.
    pub pins: u64,
    /// Images of other registries that are pinned, by the operator or by the configuration.
    pub pinned_images: u64,
    /// All content, manifests included.
    pub blobs: u64,
    /// What was not there already.
    pub copied_blobs: u64,
    /// Its length in bytes.
    pub copied_bytes: u64,
    /// What nothing in it needs any more and was removed.
    pub removed_blobs: u64,
    /// Its length in bytes.
    pub removed_bytes: u64,
    /// Manifests of which something had been deleted, and which are in it without that.
    pub incomplete: u64,
    /// Images that are not in it.
    pub damaged: Vec<Damage>,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Repositories of ours.
    pub repositories: u64,
    /// Their manifests and indexes, those included that were there.
    pub manifests: u64,
    /// Their tags, those included that meant the same.
    pub tags: u64,
    /// Patterns that are pinned, those included that were.
    pub pins: u64,
    /// Images of other registries that are in the cache, those included that were.
    pub pinned_images: u64,
    /// Content that was not there.
    pub copied_blobs: u64,
    /// Its length in bytes.
    pub copied_bytes: u64,
    /// Images of which nothing came back.
    pub damaged: Vec<Damage>,
}
