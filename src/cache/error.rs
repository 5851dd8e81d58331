//! Why the cache has no answer. The door turns each of these into a status; nothing here knows one.

use std::sync::Arc;

use thiserror::Error;

use crate::oci::{Digest, ManifestError, Registry};
use crate::storage::StorageError;
use crate::upstream::{Part, UpstreamError};

/// Why there is no answer. Cheap to clone: everyone who waited for the same work gets the same one.
#[derive(Clone, Debug, Error)]
pub enum CacheError {
    /// Upstream is well and says that there is no such thing.
    #[error("{registry} has no such content, or none that it lets this mirror read")]
    Absent {
        /// Who said so.
        registry: Registry,
    },
    /// It is not here, and upstream cannot give it now.
    #[error("not cached here, and {registry} cannot give it now: {reason}")]
    Unavailable {
        /// Who was asked.
        registry: Registry,
        /// What came instead.
        reason: Arc<UpstreamError>,
    },
    /// Upstream sent something, but not what was asked for. Nothing of it was kept.
    #[error("{registry} sent something else than {digest}")]
    Mismatch {
        /// Who sent it.
        registry: Registry,
        /// What was asked for.
        digest: Digest,
    },
    /// Upstream sent a manifest that is none.
    #[error("{registry} sent {reason}")]
    NotAManifest {
        /// Who sent it.
        registry: Registry,
        /// What is wrong with it.
        reason: ManifestError,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// It belongs to a registry that is not mirrored here.
    #[error("{0} is not mirrored here")]
    NotMirrored(Registry),
    /// Upstream takes longer over it than a client should wait. The work goes on.
    #[error("not cached here, and upstream takes too long to answer: it is still being asked, try again")]
    Late,
    /// Too much is being fetched already.
    #[error("too many blobs are being fetched: try again in a moment")]
    Busy,
    /// The task that worked on it ended without a word; a bug, or a shutdown.
    #[error("the work was abandoned: try again")]
    Abandoned,
}

impl From<StorageError> for CacheError {
    fn from(error: StorageError) -> CacheError {
        CacheError::Storage(Arc::new(error))
    }
}

impl CacheError {
    /// Says who answered so.
    pub fn from_upstream(registry: &Registry, error: UpstreamError) -> CacheError {
        let registry = registry.clone();
        if error.is_absence() {
            return CacheError::Absent { registry };
        }
        CacheError::Unavailable { registry, reason: Arc::new(error) }
    }

    /// The same, where it must be upstream's trouble: a schema 1 manifest alone is what upstream really has.
    pub fn as_trouble(self) -> CacheError {
        match self {
            CacheError::NotAManifest { registry, reason } if reason != ManifestError::Schema1 => {
                let reason = UpstreamError::Invalid { part: Part::Registry, reason: reason.to_string() };
                CacheError::Unavailable { registry, reason: Arc::new(reason) }
            }
            other => other,
        }
    }

    /// Whether upstream, being well, says no: what is worth remembering for a while.
    pub fn is_absence(&self) -> bool {
        matches!(self, CacheError::Absent { .. })
    }
}
