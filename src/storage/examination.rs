//! Looking at all of one blob: whether it is still what its digest says. Its checksums are made where they are missing,
//! and it is set aside if it is wrong. Never fetches anything: who can, is above.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::blob::Extent;
use super::durable;
use super::error::StorageError;
use super::proof::is_lost;
use super::sums::{Summer, Sums};
use super::vault::Vault;
use crate::oci::{Digest, Hasher};

/// Bytes read and hashed at a time.
const STRIDE: u64 = 1 << 20;

/// What a look at a blob came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what its digest says.
    Right,
    /// It is, and its checksums were missing or wrong, and are made anew.
    Summed,
    /// It was not, and is in quarantine now.
    Damaged,
    /// It is not here, or was replaced meanwhile.
    Gone,
}

impl Verdict {
    /// Every one.
    pub const ALL: [Verdict; 4] = [Verdict::Right, Verdict::Summed, Verdict::Damaged, Verdict::Gone];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Right => "ok",
            Verdict::Summed => "resummed",
            Verdict::Damaged => "damaged",
            Verdict::Gone => "gone",
        }
    }
}

/// A look at one blob, under way.
pub struct Examination {
    vault: Arc<Vault>,
    digest: Digest,
    path: PathBuf,
    file: Arc<File>,
    size: u64,
    read: u64,
    hasher: Hasher,
    summer: Summer,
    is_unreadable: bool,
}

impl Examination {
    /// Begins one; there is none of a blob that is not here. Looking at it is no use of it.
    pub(super) fn begin(vault: Arc<Vault>, digest: Digest) -> Result<Option<Examination>, StorageError> {
        let path = vault.layout.blob(&digest);
        let file = match File::open(&path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("opening", &path)(error)),
        };
        let size = file.metadata().map_err(StorageError::io("looking at", &path))?.len();
        let (hasher, summer) = (Hasher::new(digest.algorithm()), Summer::default());
        Ok(Some(Examination { vault, digest, path, file, size, read: 0, hasher, summer, is_unreadable: false }))
    }

    /// How long the blob is, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads on, and says how many bytes that were; none at the end.
    ///
    /// # Errors
    /// The disk fails, in another way than by not giving the bytes back: that is damage.
    pub fn step(&mut self) -> Result<u64, StorageError> {
        let length = STRIDE.min(self.size - self.read);
        if length == 0 || self.is_unreadable {
            return Ok(0);
        }
        match Extent::unproven(self.file.clone(), self.read, length as usize).read() {
            Ok(bytes) => {
                self.hasher.update(&bytes);
                self.summer.update(&bytes);
                self.read += length;
                Ok(length)
            }
            Err(error) if is_lost(&error) || error.kind() == io::ErrorKind::UnexpectedEof => {
                self.is_unreadable = true;
                Ok(0)
            }
            Err(error) => Err(StorageError::unreadable(&self.digest, error)),
        }
    }

    /// Does what follows from what was read.
    ///
    /// # Errors
    /// The disk fails.
    pub fn finish(self) -> Result<Verdict, StorageError> {
        let Examination { vault, digest, path, file, size, read, hasher, summer, is_unreadable } = self;
        let _open = vault.while_open()?;
        // What stands there now may be another file, which was not looked at.
        let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if inode(fs::metadata(&path)) != inode(file.metadata()) {
            return Ok(Verdict::Gone);
        }
        if is_unreadable || read != size || hasher.finish() != digest {
            vault.quarantine(&digest, if is_unreadable { "it cannot be read" } else { "its bytes are wrong" })?;
            return Ok(Verdict::Damaged);
        }
        let sums = summer.finish();
        let is_summed = !Sums::are_kept_for(size) || Sums::read(&path, size).as_ref() == Some(&sums);
        if !is_summed {
            sums.write(&path, &vault.layout.ingest())?;
            path.parent().map_or(Ok(()), durable::sync_directory)?;
            vault.proven(&digest, sums);
        }
        Ok(if is_summed { Verdict::Right } else { Verdict::Summed })
    }
}

/// A whole look in one go. Blocks for as long as reading and hashing it takes.
pub(super) fn examine(vault: &Arc<Vault>, digest: &Digest) -> Result<Verdict, StorageError> {
    // One at a time: of many readers that come upon the same damage, the first looks, and the others find it done.
    let _turn = vault.turn_to_examine();
    vault.doubt(digest);
    let Some(mut examination) = Examination::begin(vault.clone(), *digest)? else { return Ok(Verdict::Gone) };
    while examination.step()? > 0 {}
    examination.finish()
}
