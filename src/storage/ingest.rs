//! Content on its way in: a temporary file that is hashed while it grows, and becomes a blob only when it is right.
//!
//! Dropping an [`Ingest`] removes the file. Nothing here waits for a network; every method blocks on the disk alone.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::blob::{BlobFile, Extent};
use super::durable;
use super::error::StorageError;
use crate::oci::{Digest, Hasher};

/// A blob that is being written.
pub struct Ingest {
    temporary: NamedTempFile,
    file: Arc<File>,
    hasher: Hasher,
    written: u64,
    expected: Digest,
    target: PathBuf,
}

/// The read side of an [`Ingest`]; outlives it, and then reads the finished blob.
#[derive(Clone, Debug)]
pub struct Growing {
    file: Arc<File>,
}

impl Growing {
    /// A part of what was written before.
    pub fn extent(&self, offset: u64, length: usize) -> Extent {
        Extent { file: self.file.clone(), offset, length }
    }
}

impl Ingest {
    pub(super) fn begin(
        staging: PathBuf,
        target: PathBuf,
        expected: Digest,
        size: Option<u64>,
    ) -> Result<Ingest, StorageError> {
        let create = || -> std::io::Result<(NamedTempFile, File)> {
            let temporary = NamedTempFile::new_in(&staging)?;
            let file = temporary.reopen()?;
            Ok((temporary, file))
        };
        let (temporary, file) = create().map_err(StorageError::io("creating a file in", &staging))?;
        if let Some(size) = size.filter(|&size| size > 0) {
            reserve(temporary.as_file(), size).map_err(StorageError::io("reserving room in", &staging))?;
        }
        let hasher = Hasher::new(expected.algorithm());
        Ok(Ingest { temporary, file: Arc::new(file), hasher, written: 0, expected, target })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk fails; the ingest is of no more use then.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.temporary.write_all(piece).map_err(StorageError::io("writing", self.temporary.path()))?;
        self.hasher.update(piece);
        self.written += piece.len() as u64;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// A reader of what has been taken so far and will be.
    pub fn growing(&self) -> Growing {
        Growing { file: self.file.clone() }
    }

    /// Checks the bytes and makes them the blob of their digest, durably.
    ///
    /// # Errors
    /// The bytes hash to something else, or the disk fails; nothing is left behind then.
    pub fn commit(self) -> Result<BlobFile, StorageError> {
        let actual = self.hasher.finish();
        if actual != self.expected {
            return Err(StorageError::DigestMismatch { expected: self.expected, actual: Box::new(actual) });
        }
        durable::publish(self.temporary, &self.target)?;
        Ok(BlobFile::new(self.file, self.written))
    }
}

/// Learns of a full disk at the first byte instead of the last. Not every file system can; those will tell later.
fn reserve(file: &File, size: u64) -> std::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
