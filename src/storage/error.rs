//! What can go wrong with the disk. Absence is not an error here: whoever looks something up gets an `Option`.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::oci::Digest;

/// A failure of the disk, or of content to be what it was said to be.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The file system is full.
    #[error("no space left while {doing} {path}: free some, or move data_dir to a larger file system")]
    NoSpace {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The cache may not use more of the disk.
    #[error("the cache is full: max_size or min_free leaves no room for it, and nothing may be evicted")]
    NoRoom,
    /// After a start, it is not known yet how much is here.
    #[error("what is here is still being counted, so nothing is kept yet: wait, or look in the log")]
    Uncounted,
    /// Any other failure of the file system.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The server is stopping: what is not kept yet is fetched again another time.
    #[error("the server is stopping")]
    Closed,
    /// A small file of a hosted repository is not what was written.
    #[error("{path} is damaged: restore it from a backup, or push what it was about again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A hosted repository holds it, and its file is gone or damaged.
    #[error("{digest} was pushed here and is lost: its file is missing or damaged; push it again")]
    Lost {
        /// What is lost.
        digest: Digest,
        /// Whether that was not known before.
        new: bool,
    },
    /// The bytes that came are not those that were asked for.
    #[error("the bytes hash to {actual}, not to {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Box<Digest>,
    },
    /// More or fewer bytes came than were announced.
    #[error("{actual} bytes came where {expected} were announced")]
    SizeMismatch {
        /// What was announced.
        expected: u64,
        /// What came.
        actual: u64,
    },
}

impl StorageError {
    /// Says where an I/O error arose.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::NoSpace { doing, path },
            _ => StorageError::Io { doing, path, source },
        }
    }

    /// Says that a blob is there and cannot be read.
    pub fn unreadable(digest: &Digest, source: io::Error) -> StorageError {
        StorageError::Io { doing: "reading blob", path: digest.to_string().into(), source }
    }

    /// Whether the content was wrong, rather than the disk.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, StorageError::DigestMismatch { .. } | StorageError::SizeMismatch { .. })
    }
}
