//! Why the cache has no answer. The door turns each of these into a status; nothing here knows one.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::oci::{Digest, ManifestError, Registry, RepoName, Repository};
use crate::storage::StorageError;
use crate::upstream::{Part, UpstreamError};

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A manifest: its own, or all of an index's.
    Manifest,
    /// The config.
    Config,
    /// A layer.
    Layer,
}

impl Missing {
    /// Every one.
    pub const ALL: [Missing; 3] = [Missing::Manifest, Missing::Config, Missing::Layer];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Missing::Manifest => "manifest",
            Missing::Config => "config",
            Missing::Layer => "layer",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Manifest => "a manifest",
            Missing::Config => "the config",
            Missing::Layer => "a layer",
        })
    }
}

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
    #[error("{registry}: {reason}")]
    Unavailable {
        /// Who was asked.
        registry: Registry,
        /// What came instead.
        reason: Arc<UpstreamError>,
    },
    /// Upstream is out of order, and something that the image needs is not here: whoever began to pull it could not end.
    #[error("{registry} is out of order, and of this image {missing} is not cached here")]
    Incomplete {
        /// Who has the rest.
        registry: Registry,
        /// What is missing.
        missing: Missing,
    },
    /// It is not for everyone, as far as its registry tells those who ask without an account.
    #[error(
        "{repository} cannot be pulled by everyone, and this mirror asks nobody who they are: its operator can list it \
         under `private` of the upstream"
    )]
    Private {
        /// What was asked for.
        repository: Repository,
    },
    /// Whether it is for everyone could not be learnt, so it is kept back.
    #[error("{registry}: {reason}; whether {name} is for everyone is not known here, so it is not served")]
    Undecided {
        /// Who was asked.
        registry: Registry,
        /// What was asked for.
        name: RepoName,
        /// Why there was no answer.
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
    #[error("upstream takes too long to answer: it is still being asked, try again")]
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

    /// Whether upstream, or the way to it, is not in working order.
    pub fn is_outage(&self) -> bool {
        match self {
            CacheError::Unavailable { reason, .. } => reason.is_outage(),
            CacheError::Late => true,
            _ => false,
        }
    }

    /// Whether upstream limits how often we may ask.
    pub fn is_limit(&self) -> bool {
        matches!(self, CacheError::Unavailable { reason, .. } if matches!(**reason, UpstreamError::RateLimited { .. }))
    }
}
