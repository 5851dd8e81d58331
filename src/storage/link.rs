//! What a link from a repository to a digest says: what the content is to that repository, and how long it is. Never says
//! whether the content is on disk: only opening its file does.

use crate::oci::MediaType;

/// What some content is to a repository that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A manifest or an index, served under the media type that it was pushed or fetched with.
    Manifest {
        /// That media type.
        media_type: MediaType,
        /// Its length in bytes.
        size: u64,
    },
    /// A config or a layer.
    Blob {
        /// Its length in bytes.
        size: u64,
    },
}

impl Link {
    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        match *self {
            Link::Manifest { size, .. } | Link::Blob { size } => size,
        }
    }
}
