//! A blob on disk, opened: its bytes can be read even when its name is gone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

/// Complete and verified content. Clones share one descriptor.
#[derive(Clone, Debug)]
pub struct BlobFile {
    file: Arc<File>,
    size: u64,
}

impl BlobFile {
    pub(super) fn new(file: Arc<File>, size: u64) -> BlobFile {
        BlobFile { file, size }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads `length` bytes from `offset` on; blocks.
    ///
    /// # Errors
    /// The disk fails, or the file is shorter than it was: bytes that are missing are never made up.
    pub fn read_at(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        read_at(&self.file, offset, length)
    }

    /// All of it; for what is known to be small. Blocks.
    ///
    /// # Errors
    /// As [`BlobFile::read_at`].
    pub fn read_all(&self) -> std::io::Result<Bytes> {
        self.read_at(0, self.size as usize)
    }
}

pub(super) fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.into())
}
