//! A blob on disk, opened: its bytes can be read, or sent without being read, even when its name is gone.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::proof::Proof;

/// Bytes of which one is looked at to learn whether they are in memory: what the kernel reads ahead at least.
const STEP: usize = 128 << 10;
/// How far ahead of what is needed now the disk is set to work.
const AHEAD: u64 = 4 << 20;

/// Complete and verified content. Clones share one descriptor.
#[derive(Clone, Debug)]
pub struct BlobFile {
    file: Arc<File>,
    size: u64,
    proof: Option<Arc<Proof>>,
}

/// A part of a file. Holds the file open.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The file.
    pub file: Arc<File>,
    /// Where the part begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: usize,
    /// By what it can be checked; what is still on its way, or has no sums, by nothing.
    pub(super) proof: Option<Arc<Proof>>,
}

impl BlobFile {
    pub(super) fn new(file: Arc<File>, size: u64, proof: Option<Arc<Proof>>) -> BlobFile {
        BlobFile { file, size, proof }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A part of it.
    pub fn extent(&self, offset: u64, length: usize) -> Extent {
        Extent { file: self.file.clone(), offset, length, proof: self.proof.clone() }
    }

    /// Whether the open file still has a name, and its length. Does not wait for the disk: an open file's state is in memory.
    pub(super) fn is_as_it_was(&self) -> bool {
        fstat(&self.file).is_ok_and(|state| state.st_nlink > 0 && state.st_size as u64 == self.size)
    }

    /// All of it, unchecked; for what is known to be small, and whose digest the caller looks at. Blocks.
    ///
    /// # Errors
    /// The disk fails, or the file is shorter than it was.
    pub fn read_all(&self) -> io::Result<Bytes> {
        Extent { proof: None, ..self.extent(0, self.size as usize) }.read()
    }
}

impl Extent {
    /// A place in memory that can be sent like one in a file.
    ///
    /// # Errors
    /// The system gives no memory, or no descriptor.
    pub fn in_memory(bytes: &[u8]) -> io::Result<Extent> {
        let file = File::from(rustix::fs::memfd_create("larder", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all_at(bytes, 0)?;
        Ok(Extent::unproven(Arc::new(file), 0, bytes.len()))
    }

    /// What has just been written, and is not checked by anything yet.
    pub(super) fn unproven(file: Arc<File>, offset: u64, length: usize) -> Extent {
        Extent { file, offset, length, proof: None }
    }

    /// Reads it, and checks it if that is due; blocks.
    ///
    /// # Errors
    /// The disk fails, the bytes are wrong ([`super::is_lost`]), or the file is shorter than it was: bytes that are
    /// missing are never made up.
    pub fn read(&self) -> io::Result<Bytes> {
        if self.proof.is_some() && !self.is_ready()? {
            self.load()?;
        }
        let mut buffer = vec![0; self.length];
        self.file.read_exact_at(&mut buffer, self.offset)?;
        Ok(buffer.into())
    }

    /// Whether it can be sent as it is: in memory, and found right lately.
    ///
    /// # Errors
    /// As [`Extent::is_resident`].
    pub fn is_ready(&self) -> io::Result<bool> {
        let is_fresh = self.proof.as_ref().is_none_or(|proof| proof.is_fresh(self.offset, self.length));
        Ok(is_fresh && self.is_resident()?)
    }

    /// Whether it is in memory, as far as a few samples tell. Does not wait for the disk; where the file system cannot
    /// promise that, nothing is in memory.
    ///
    /// # Errors
    /// The disk fails, or the file ends before it does.
    pub fn is_resident(&self) -> io::Result<bool> {
        if self.length == 0 {
            return Ok(true);
        }
        let last = self.length.saturating_sub(1);
        for at in (0..last).step_by(STEP).chain([last]) {
            let mut byte = [0];
            let into = &mut [IoSliceMut::new(&mut byte)];
            match preadv2(&self.file, into, self.offset + at as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Brings it into memory, checks it, and lets the disk begin with what comes after it. Blocks.
    ///
    /// # Errors
    /// As [`Extent::read`].
    pub fn load(&self) -> io::Result<()> {
        // Advice that is not taken is no error.
        let _ = fadvise(&self.file, self.offset, std::num::NonZeroU64::new(AHEAD), Advice::WillNeed);
        if let Some(proof) = &self.proof {
            // Bytes that lie outside are an error, too.
            let mut last = [0];
            self.file.read_exact_at(&mut last, self.offset + self.length.saturating_sub(1) as u64)?;
            return proof.check(&self.file, self.offset, self.length);
        }
        let mut scratch = vec![0; self.length.min(STEP)];
        for at in (0..self.length).step_by(STEP) {
            let length = STEP.min(self.length - at);
            self.file.read_exact_at(&mut scratch[..length], self.offset + at as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(size: usize) -> (BlobFile, Vec<u8>) {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        (BlobFile::new(Arc::new(file), size as u64, None), content)
    }

    #[test]
    fn what_was_loaded_is_resident_and_what_was_dropped_can_be_loaded_again() {
        let (blob, content) = stored(3 * STEP + 1);
        // Some file systems keep everything in memory: then nothing is dropped.
        blob.file.sync_all().unwrap();
        fadvise(&blob.file, 0, None, Advice::DontNeed).unwrap();
        for (offset, length) in [(0, content.len()), (1, STEP), (STEP, STEP + 1), (content.len() - 1, 1)] {
            let extent = blob.extent(offset as u64, length);
            extent.load().unwrap();
            assert!(extent.is_resident().unwrap(), "{offset} {length}");
            assert_eq!(extent.read().unwrap(), content[offset..offset + length]);
        }
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let (blob, content) = stored(STEP);
        for (offset, length) in [(0, STEP + 1), (STEP, 1), (content.len() - 1, 2)] {
            let extent = blob.extent(offset as u64, length);
            assert!(extent.read().is_err() && extent.load().is_err() && extent.is_resident().is_err(), "{offset}");
        }
    }
}
