//! What happens to the files, as the index is told of it, and the files as the index can be rebuilt from them.
//!
//! A change is recorded after it was made on disk, never before: a walk over the files that runs at the same time relies
//! on it.

use std::io;
use std::ops::ControlFlow;

use crate::oci::{Digest, Tag};
use crate::storage::home::Home;
use crate::storage::link::Link;

/// Something that happened to the files. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A blob's file is complete under its name.
    BlobStored {
        /// Which blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// When; also counts as its first use.
        at: u64,
    },
    /// A blob's file is gone.
    BlobRemoved {
        /// Which blob.
        digest: Digest,
    },
    /// A repository holds some content.
    Linked {
        /// Which repository.
        repository: Home,
        /// Which content.
        digest: Digest,
        /// As what.
        link: Link,
    },
    /// A repository no longer holds some content.
    Unlinked {
        /// Which repository.
        repository: Home,
        /// Which content.
        digest: Digest,
    },
    /// A tag points at a manifest, as upstream or a push said at that time.
    TagSet {
        /// The tag's repository.
        repository: Home,
        /// Which tag.
        tag: Tag,
        /// What it points at.
        digest: Digest,
        /// When that was said.
        at: u64,
    },
    /// Upstream confirmed that a tag still points where it did.
    TagChecked {
        /// The tag's repository.
        repository: Home,
        /// Which tag.
        tag: Tag,
        /// When.
        at: u64,
    },
    /// A tag is gone.
    TagRemoved {
        /// The tag's repository.
        repository: Home,
        /// Which tag.
        tag: Tag,
    },
    /// A blob was asked for. Some of these may be lost; recency is kept to the minute.
    Used {
        /// Which blob.
        digest: Digest,
        /// When.
        at: u64,
    },
}

/// The files, which the index can be rebuilt from.
pub trait Truth: Send + Sync + 'static {
    /// Tells `each` every change that makes an empty index a complete one (`BlobStored`, `Linked`, `TagSet`, and
    /// `TagChecked` after its tag), in any order, until it breaks off. Files may come and go meanwhile; what exists from
    /// the walk's beginning to its end is told of.
    ///
    /// # Errors
    /// A directory could not be read completely. Nothing is then concluded from what was not told of.
    fn walk(&self, each: &mut dyn FnMut(Change) -> ControlFlow<()>) -> io::Result<()>;

    /// Whether there is no blob file at all.
    ///
    /// # Errors
    /// The directories could not be read.
    fn is_empty(&self) -> io::Result<bool>;
}
