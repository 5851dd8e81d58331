//! Why a layout cannot be read or written.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::oci::Digest;

/// Why not.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The disk failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{0} is not empty and no OCI image layout: name an empty or a new directory, or that of an earlier backup")]
    NotALayout(PathBuf),
    /// There is no layout.
    #[error(
        "{0} has no index.json and oci-layout: it is no OCI image layout, or one whose first backup was not finished"
    )]
    Absent(PathBuf),
    /// A file of the layout itself.
    #[error("{path} is damaged, or of a version that this one does not know: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Someone else is at it.
    #[error("{0} is being written or read by another larder: wait until it is done")]
    InUse(PathBuf),
    /// Content that is not there.
    #[error("{0} is missing")]
    Missing(Digest),
    /// Content that is not what its name says.
    #[error("{expected} is damaged: its bytes hash to {actual}")]
    Damaged {
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Box<Digest>,
    },
    /// Content that is longer than anything of its kind may be.
    #[error("{digest} is larger than the {limit} bytes that are taken")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// In bytes.
        limit: u64,
    },
}

impl LayoutError {
    /// Says where an I/O error arose.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError + use<> {
        let path = path.to_owned();
        move |source| LayoutError::Io { doing, path, source }
    }
}
