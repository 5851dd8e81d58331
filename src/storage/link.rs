//! What a link from a repository to a digest says: what the content is to that repository, and how long it is. Never says
//! whether the content is on disk: only opening its file does.

use serde::{Deserialize, Serialize};

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

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    size: u64,
}

impl Link {
    /// The content of a link's file.
    pub(super) fn to_json(self) -> Vec<u8> {
        let text = match self {
            Link::Manifest { media_type, size } => Text { manifest: Some(media_type.to_string()), size },
            Link::Blob { size } => Text { manifest: None, size },
        };
        // Two plain fields always serialise.
        serde_json::to_vec(&text).unwrap_or_default()
    }

    /// The reverse of [`Link::to_json`].
    pub(super) fn from_json(bytes: &[u8]) -> Option<Link> {
        let text: Text = serde_json::from_slice(bytes).ok()?;
        Some(match text.manifest {
            Some(media_type) => Link::Manifest { media_type: media_type.parse().ok()?, size: text.size },
            None => Link::Blob { size: text.size },
        })
    }
}
