//! Checksums of a blob's pieces: a small file beside it, by which a damaged piece is found without reading the rest.
//!
//! A blob's digest can be checked only over all of it; a CRC32 for each [`PIECE`] can be checked before that piece is
//! sent. The file says how long the blob is and has a checksum of its own: one that is damaged is none, and says nothing
//! about the blob. A blob of one piece has none, for its digest does as well. Never decides what becomes of damage.

use std::fs;
use std::path::{Path, PathBuf};

use super::durable;
use super::error::StorageError;

/// Bytes that one sum is of.
pub const PIECE: usize = 64 << 10;

/// The first bytes of the file: what it is, and in which form.
const MAGIC: &[u8; 8] = b"LARDCRC1";

/// The sums of one blob, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// The blob's length in bytes.
    pub size: u64,
    /// One for each piece.
    pub each: Vec<u32>,
}

/// Adds up a blob that comes in order, in pieces of any length.
#[derive(Clone, Default)]
pub struct Summer {
    each: Vec<u32>,
    current: crc32fast::Hasher,
    size: u64,
}

impl Summer {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PIECE - (self.size % PIECE as u64) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.size += now.len() as u64;
            if now.len() == room {
                self.each.push(std::mem::take(&mut self.current).finalize());
            }
            bytes = later;
        }
    }

    /// The sums of all that came.
    pub fn finish(mut self) -> Sums {
        if !self.size.is_multiple_of(PIECE as u64) {
            self.each.push(self.current.finalize());
        }
        Sums { size: self.size, each: self.each }
    }
}

impl Sums {
    /// Whether a blob of so many bytes has a file of sums.
    pub fn are_kept_for(size: u64) -> bool {
        size > PIECE as u64
    }

    /// How long the file of the sums of a blob of `size` bytes is; 0: there is none.
    pub fn length_for(size: u64) -> u64 {
        let whole = 4 * size.div_ceil(PIECE as u64) + MAGIC.len() as u64 + 12;
        if Sums::are_kept_for(size) { whole } else { 0 }
    }

    /// Writes them durably beside the blob at `blob`, but for the name's own sync: the blob's commit does that. Before the
    /// blob: one that is there has had its sums.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write(&self, blob: &Path, staging: &Path) -> Result<(), StorageError> {
        if !Sums::are_kept_for(self.size) {
            return Ok(());
        }
        durable::write_unnamed(&beside(blob), staging, &[&self.encode()])
    }

    /// Those of the blob at `blob`, if they are there and are for a blob of that length.
    pub fn read(blob: &Path, size: u64) -> Option<Sums> {
        if !Sums::are_kept_for(size) {
            return None;
        }
        let sums = Sums::decode(&fs::read(beside(blob)).ok()?);
        if sums.is_none() {
            tracing::warn!(blob = %blob.display(), "a file of checksums is damaged and counts as absent");
        }
        sums.filter(|sums| sums.size == size)
    }

    fn encode(&self) -> Vec<u8> {
        let each = self.each.iter().flat_map(|sum| sum.to_le_bytes());
        let mut bytes: Vec<u8> = MAGIC.iter().copied().chain(self.size.to_le_bytes()).chain(each).collect();
        let own = crc32fast::hash(&bytes);
        bytes.extend(own.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Sums> {
        let (bytes, own) = bytes.split_last_chunk::<4>()?;
        let rest = bytes.strip_prefix(MAGIC).filter(|_| crc32fast::hash(bytes) == u32::from_le_bytes(*own))?;
        let (size, each) = rest.split_first_chunk::<8>()?;
        let (size, (each, left)) = (u64::from_le_bytes(*size), each.as_chunks::<4>());
        let each: Vec<u32> = each.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        (left.is_empty() && each.len() as u64 == size.div_ceil(PIECE as u64)).then_some(Sums { size, each })
    }
}

/// Where the sums of the blob at `blob` are.
pub fn beside(blob: &Path) -> PathBuf {
    blob.with_extension("crc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(content: &[u8], step: usize) -> Sums {
        let mut summer = Summer::default();
        content.chunks(step).for_each(|piece| summer.update(piece));
        summer.finish()
    }

    #[test]
    fn sums_do_not_depend_on_how_the_bytes_came_and_are_read_back() {
        let home = tempfile::tempdir().unwrap();
        let blob = home.path().join("blob");
        for size in [PIECE + 1, 2 * PIECE, 5 * PIECE + 7] {
            let content: Vec<u8> = (0..size).map(|at| (at % 241) as u8).collect();
            let sums = summed(&content, size);
            let expected: Vec<u32> = content.chunks(PIECE).map(crc32fast::hash).collect();
            assert_eq!(sums, Sums { size: size as u64, each: expected });
            for step in [1000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
                assert_eq!(summed(&content, step), sums, "{step}");
            }
            sums.write(&blob, home.path()).unwrap();
            assert_eq!(Sums::read(&blob, size as u64), Some(sums));
            assert_eq!(Sums::read(&blob, size as u64 + 1), None, "of another blob");
        }
    }

    #[test]
    fn sums_that_are_damaged_are_none() {
        let whole = summed(&vec![5; 3 * PIECE], PIECE).encode();
        assert!(Sums::decode(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(Sums::decode(&whole[..cut]), None, "cut at {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 4;
            assert_eq!(Sums::decode(&flipped), None, "flipped at {cut}");
        }
    }

    #[test]
    fn a_blob_of_one_piece_has_no_file() {
        let home = tempfile::tempdir().unwrap();
        let blob = home.path().join("blob");
        summed(&vec![5; PIECE], PIECE).write(&blob, home.path()).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
