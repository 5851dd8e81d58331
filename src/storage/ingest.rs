//! Content on its way in: a file that is hashed in order, whatever order its bytes arrive in, and becomes a blob only
//! when it is right.
//!
//! Bytes *land* anywhere ([`Landing`]); the ingest follows behind them and hashes, so that what it has passed is a prefix
//! of the blob whose hash is known. A resumable ingest has its digest's name, and a mark beside it that says how far it is:
//! dropped, as by a process that is killed, it leaves both for the next one to go on with. Every method blocks on the disk
//! alone.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::{NamedTempFile, TempPath};

use super::blob::Extent;
use super::durable;
use super::error::StorageError;
use super::sums::{Summer, Sums};
use crate::oci::{Digest, Hasher};

/// Bytes read back and hashed at a time.
const STRIDE: u64 = 1 << 20;

/// A blob that is being written.
pub struct Ingest {
    path: TempPath,
    mark: Option<Mark>,
    file: Arc<File>,
    hasher: Hasher,
    summer: Summer,
    passed: u64,
    // Bytes that an earlier attempt had passed, and left.
    left: u64,
    expected: Digest,
    target: PathBuf,
}

/// Where bytes are written as they arrive. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct Landing {
    file: Arc<File>,
}

impl Landing {
    /// Writes `piece` where it belongs.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_at(&self, offset: u64, piece: &[u8]) -> Result<(), StorageError> {
        self.file.write_all_at(piece, offset).map_err(StorageError::io("writing", Path::new("ingest")))
    }
}

/// The read side of an [`Ingest`]; outlives it, and then reads the finished blob.
#[derive(Clone, Debug)]
pub struct Growing {
    file: Arc<File>,
}

impl Growing {
    /// A part of what was passed before.
    pub fn extent(&self, offset: u64, length: usize) -> Extent {
        Extent::unproven(self.file.clone(), offset, length)
    }
}

impl Ingest {
    /// Begins in a file that has no name worth keeping.
    pub(super) fn unnamed(staging: &Path, target: PathBuf, expected: Digest) -> Result<Ingest, StorageError> {
        let failed = StorageError::io("creating a file in", staging);
        let (file, path) = NamedTempFile::new_in(staging).map_err(failed)?.into_parts();
        Ok(Ingest::new(path, None, file, expected, target))
    }

    /// Goes on with the file at `path`, or begins it; what is [`Ingest::left`] in it has to be passed again. Only one at a time
    /// may: the caller sees to that.
    pub(super) fn resumable(path: &Path, target: PathBuf, expected: Digest) -> Result<Ingest, StorageError> {
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = open().map_err(StorageError::io("opening", path))?;
        let (mark, marked) = Mark::open(path)?;
        let length = file.metadata().map_err(StorageError::io("looking at", path))?.len();
        let mut path = TempPath::try_from_path(path).map_err(StorageError::io("taking", path))?;
        path.disable_cleanup(true);
        let mut ingest = Ingest::new(path, Some(mark), file, expected, target);
        // A mark without its bytes is a lost write: what is there is not to be believed.
        ingest.left = if marked <= length { marked } else { 0 };
        Ok(ingest)
    }

    fn new(path: TempPath, mark: Option<Mark>, file: File, expected: Digest, target: PathBuf) -> Ingest {
        let hasher = Hasher::new(expected.algorithm());
        Ingest {
            path,
            mark,
            file: Arc::new(file),
            hasher,
            summer: Summer::default(),
            passed: 0,
            left: 0,
            expected,
            target,
        }
    }

    /// Learns of a full disk at the first byte instead of the last. Not every file system can; those will tell later.
    ///
    /// # Errors
    /// There is no room for `size` bytes.
    pub fn reserve(&self, size: u64) -> Result<(), StorageError> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&*self.file, FallocateFlags::KEEP_SIZE, 0, size.max(1)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
            Err(error) => Err(StorageError::io("reserving room for", &self.path)(error.into())),
        }
    }

    /// Hashes on up to byte `end`, which has landed with everything before it, and marks how far it is.
    ///
    /// # Errors
    /// The disk fails; the ingest is of no more use then.
    pub fn pass(&mut self, end: u64) -> Result<(), StorageError> {
        while self.passed < end {
            let length = STRIDE.min(end - self.passed) as usize;
            let failed = StorageError::io("reading back", &self.path);
            let landed = Extent::unproven(self.file.clone(), self.passed, length);
            let bytes = landed.read().map_err(failed)?;
            self.hasher.update(&bytes);
            self.summer.update(&bytes);
            self.passed += bytes.len() as u64;
        }
        // What is passed again is as good as it was: the mark does not go back.
        self.mark.as_ref().map_or(Ok(()), |mark| mark.set(self.passed.max(self.left)))
    }

    /// Takes the next bytes in order.
    ///
    /// # Errors
    /// The disk fails; the ingest is of no more use then.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.landing().write_at(self.passed, piece)?;
        self.hasher.update(piece);
        self.summer.update(piece);
        self.passed += piece.len() as u64;
        Ok(())
    }

    /// Bytes from the blob's beginning that have landed and are hashed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Bytes from the blob's beginning that an earlier attempt left here, hashed then.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Where bytes land.
    pub fn landing(&self) -> Landing {
        Landing { file: self.file.clone() }
    }

    /// A reader of what has been passed and will be.
    pub fn growing(&self) -> Growing {
        Growing { file: self.file.clone() }
    }

    /// Leaves what has been passed for the next one to go on with, and says how long that is. Room that was set apart for
    /// the rest is given back to the file system.
    pub(super) fn set_aside(self) -> u64 {
        let kept = self.passed.max(self.left);
        if kept == 0 || self.file.set_len(kept).is_err() {
            self.discard();
            return 0;
        }
        kept
    }

    /// What has been hashed so far.
    pub fn hasher(&self) -> Hasher {
        self.hasher.clone()
    }

    /// Leaves nothing behind: what is here is not worth going on with.
    pub fn discard(self) {
        remove(self.path, self.mark);
    }

    /// Checks the bytes and makes them the blob of their digest, durably, with the sums of their pieces beside them.
    ///
    /// # Errors
    /// The bytes hash to something else, and nothing is left behind, or the disk fails.
    pub(super) fn commit(self) -> Result<(Arc<File>, Sums), StorageError> {
        let Ingest { path, mark, file, hasher, summer, expected, target, .. } = self;
        let actual = hasher.finish();
        if actual != expected {
            remove(path, mark);
            return Err(StorageError::DigestMismatch { expected, actual: Box::new(actual) });
        }
        let sums = summer.finish();
        sums.write(&target, path.parent().unwrap_or(Path::new(".")))?;
        durable::publish(&file, path, &target)?;
        mark.iter().for_each(Mark::remove);
        Ok((file, sums))
    }
}

fn remove(mut path: TempPath, mark: Option<Mark>) {
    path.disable_cleanup(false);
    mark.iter().for_each(Mark::remove);
}

/// How far a resumable ingest is, as a number in a file of its own: written often, synced never. After a power cut it may
/// be ahead of the bytes; the digest finds that out.
struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    fn open(part: &Path) -> Result<(Mark, u64), StorageError> {
        let path = part.with_extension("mark");
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open().map_err(StorageError::io("opening", &path))?;
        let mut number = [0; 8];
        let marked = file.read_exact_at(&mut number, 0).map_or(0, |()| u64::from_le_bytes(number));
        Ok((Mark { file, path }, marked))
    }

    fn set(&self, passed: u64) -> Result<(), StorageError> {
        self.file.write_all_at(&passed.to_le_bytes(), 0).map_err(StorageError::io("writing", &self.path))
    }

    fn remove(&self) {
        // One that stays is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        _home: tempfile::TempDir,
        part: PathBuf,
        target: PathBuf,
    }

    fn place() -> Place {
        let home = tempfile::tempdir().unwrap();
        Place { part: home.path().join("a.part"), target: home.path().join("blob"), _home: home }
    }

    #[test]
    fn bytes_may_land_in_any_order_and_are_hashed_in_theirs() {
        let (place, content) = (place(), vec![7; 3_000_000]);
        let mut ingest = Ingest::resumable(&place.part, place.target.clone(), Digest::sha256(&content)).unwrap();
        ingest.landing().write_at(1_500_000, &content[1_500_000..]).unwrap();
        ingest.landing().write_at(0, &content[..1_500_000]).unwrap();
        ingest.pass(2_000_000).unwrap();
        assert_eq!(ingest.growing().extent(1_999_990, 10).read().unwrap(), vec![7; 10]);
        ingest.pass(3_000_000).unwrap();
        assert_eq!(ingest.commit().unwrap().1.size, 3_000_000);
        assert_eq!(fs::read(&place.target).unwrap(), content);
        assert!(!place.part.exists() && !place.part.with_extension("mark").exists());
    }

    #[test]
    fn what_was_hashed_is_gone_on_with_and_what_is_discarded_is_gone() {
        let (place, content) = (place(), b"0123456789".to_vec());
        let begin = || Ingest::resumable(&place.part, place.target.clone(), Digest::sha256(&content)).unwrap();
        let mut first = begin();
        first.landing().write_at(0, &content[..6]).unwrap();
        first.pass(4).unwrap();
        drop(first);
        let mut second = begin();
        assert_eq!((second.left(), second.passed()), (4, 0), "what was hashed, not what had landed");
        second.pass(2).unwrap();
        drop(second);
        let mut second = begin();
        assert_eq!(second.left(), 4, "although not all of it was hashed again");
        second.landing().write_at(4, &content[4..]).unwrap();
        second.pass(10).unwrap();
        second.commit().unwrap();
        assert_eq!(fs::read(&place.target).unwrap(), content);

        let mut third = begin();
        third.append(b"wrong").unwrap();
        third.discard();
        assert!(!place.part.exists() && !place.part.with_extension("mark").exists());
    }

    #[test]
    fn wrong_bytes_leave_nothing_behind() {
        let place = place();
        let mut ingest = Ingest::resumable(&place.part, place.target.clone(), Digest::sha256(b"right")).unwrap();
        ingest.append(b"wrong").unwrap();
        assert!(matches!(ingest.commit(), Err(StorageError::DigestMismatch { .. })));
        assert!(!place.target.exists() && !place.part.exists() && !place.part.with_extension("mark").exists());
    }

    #[test]
    fn a_mark_ahead_of_its_bytes_is_not_believed() {
        let place = place();
        fs::write(&place.part, b"short").unwrap();
        fs::write(place.part.with_extension("mark"), 99u64.to_le_bytes()).unwrap();
        let ingest = Ingest::resumable(&place.part, place.target, Digest::sha256(b"x")).unwrap();
        assert_eq!(ingest.left(), 0);
    }
}
