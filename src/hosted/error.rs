//! Why a hosted repository does not do what it was asked. The door turns each of these into a status; nothing here knows one.

use std::sync::Arc;

use thiserror::Error;

use crate::oci::{Digest, ManifestError, Tag};
use crate::storage::StorageError;

/// Why not.
#[derive(Clone, Debug, Error)]
pub enum HostedError {
    /// Nothing is in the repository.
    #[error("repository name not known to registry")]
    NoRepository,
    /// There is no such manifest, or no such tag.
    #[error("manifest unknown to registry")]
    NoManifest,
    /// There is no such blob.
    #[error("blob unknown to registry")]
    NoBlob,
    /// There is no such upload; or it is someone else's, which is not told.
    #[error("there is no such upload, or not any more: begin a new one")]
    NoUpload,
    /// Someone uses that upload at the same time.
    #[error("the upload is in use by another request: try again")]
    UploadInUse,
    /// There are too many uploads that are not finished.
    #[error("too many uploads are not finished: try again later")]
    TooManyUploads,
    /// A chunk that does not follow on what has come.
    #[error("the chunk does not begin where the last one ended: {received} bytes have come")]
    OutOfOrder {
        /// Bytes that have come.
        received: u64,
    },
    /// A chunk that is not as long as it was said to be.
    #[error("the chunk is not as long as its Content-Range says")]
    WrongLength,
    /// A blob that is too large.
    #[error("the blob is larger than the {0} bytes that are taken")]
    TooLarge(u64),
    /// The client's body broke off.
    #[error("{0}")]
    Body(String),
    /// The content is not what its digest says.
    #[error("the content hashes to {actual}, not to {expected}: push it again")]
    WrongDigest {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Box<Digest>,
    },
    /// No manifest, or one that is not taken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The media type of the request says something else than the manifest itself.
    #[error("the Content-Type says {said}, and the manifest says {is}")]
    MediaType {
        /// What the request says.
        said: String,
        /// What the manifest says.
        is: &'static str,
    },
    /// Something that the manifest names is not here.
    #[error("the manifest names {0}, which this repository does not have: push it first")]
    MissingReference(Digest),
    /// The tag keeps its meaning.
    #[error("tag {0} is immutable")]
    Immutable(Tag),
    /// A manifest was to be deleted as a blob.
    #[error("{0} is a manifest: delete it as one")]
    IsManifest(Digest),
    /// The disk failed, or has lost something.
    #[error(transparent)]
    Storage(Arc<StorageError>),
}

impl From<StorageError> for HostedError {
    fn from(error: StorageError) -> HostedError {
        match error {
            StorageError::DigestMismatch { expected, actual } => HostedError::WrongDigest { expected, actual },
            error => HostedError::Storage(Arc::new(error)),
        }
    }
}
