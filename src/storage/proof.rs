//! That the bytes of a blob are still those that were stored: looked at again before they are sent, as often as is set.
//!
//! A piece that comes from disk is checked when it comes. One that is in memory already may go without being touched for
//! as long as the last look is young: that is what lets the kernel send it. Never decides what becomes of damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::sums::{PIECE, Sums};
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::Digest;

/// Memory for what is known of blobs' pieces, in bytes: of some 128 GiB of blobs.
const REMEMBERED: u64 = 16 << 20;

/// How often the pieces of blobs that are sent are checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Each time.
    Always,
    /// When they come from disk; those in memory when the last time is so long ago.
    After(Duration),
    /// Not at all.
    Never,
}

/// What is known of all blobs' pieces.
pub struct Proofs {
    time: Arc<Time>,
    known: Memory<Digest, Arc<Proof>>,
}

struct Time {
    clock: Clock,
    began: Instant,
    verify: Verify,
}

/// What is known of the pieces of one blob.
pub struct Proof {
    time: Arc<Time>,
    digest: Digest,
    // None: one piece, of which the digest is proof enough.
    sums: Option<Sums>,
    // When each was last found right, in seconds since the beginning and one; 0: not yet.
    found: Box<[AtomicU32]>,
}

/// The bytes of a blob are not those that were stored.
#[derive(Debug, thiserror::Error)]
#[error("{digest} is damaged at byte {at}")]
pub struct Damage {
    digest: Digest,
    at: u64,
}

/// Whether a read failed because the bytes are wrong, or the disk does not give them back.
pub fn is_lost(error: &io::Error) -> bool {
    let is_unreadable = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    is_unreadable || error.get_ref().is_some_and(|inner| inner.is::<Damage>())
}

impl Proofs {
    /// Nothing is known yet.
    pub fn new(clock: Clock, verify: Verify) -> Proofs {
        let weigher = |_: &Digest, proof: &Arc<Proof>| {
            let each = size_of::<u32>() + size_of::<AtomicU32>();
            u32::try_from(proof.found.len() * each + 256).unwrap_or(u32::MAX)
        };
        let known = memory::of_weight(REMEMBERED, weigher);
        let began = clock.tick();
        Proofs { time: Arc::new(Time { clock, began, verify }), known }
    }

    /// What is known of the blob at `path`; nothing without sums of its pieces.
    pub fn of(&self, digest: &Digest, path: &Path, size: u64) -> Option<Arc<Proof>> {
        if self.time.verify == Verify::Never {
            return None;
        }
        if let Some(proof) = self.known.get(digest).filter(|proof| proof.fits(size)) {
            return Some(proof);
        }
        let sums = match Sums::are_kept_for(size) {
            true => Some(Sums::read(path, size)?),
            false => None,
        };
        Some(self.remember(*digest, sums, 0))
    }

    /// A blob has just been hashed: all of it is right.
    pub fn proven(&self, digest: &Digest, sums: Sums) -> Option<Arc<Proof>> {
        if self.time.verify == Verify::Never {
            return None;
        }
        let sums = Sums::are_kept_for(sums.size).then_some(sums);
        Some(self.remember(*digest, sums, self.time.now()))
    }

    /// Whatever was known of a blob holds no more.
    pub fn forget(&self, digest: &Digest) {
        self.known.invalidate(digest);
    }

    fn remember(&self, digest: Digest, sums: Option<Sums>, at: u32) -> Arc<Proof> {
        let pieces = sums.as_ref().map_or(1, |sums| sums.each.len());
        let found = (0..pieces).map(|_| AtomicU32::new(at)).collect();
        let proof = Arc::new(Proof { time: self.time.clone(), digest, sums, found });
        self.known.insert(digest, proof.clone());
        proof
    }
}

impl Time {
    fn now(&self) -> u32 {
        let since = self.clock.tick().saturating_duration_since(self.began);
        u32::try_from(since.as_secs() + 1).unwrap_or(u32::MAX)
    }
}

impl Proof {
    fn fits(&self, size: u64) -> bool {
        self.sums.as_ref().map_or(!Sums::are_kept_for(size), |sums| sums.size == size)
    }

    /// Whether all pieces that these bytes are in were found right lately.
    pub fn is_fresh(&self, offset: u64, length: usize) -> bool {
        let Verify::After(lifetime) = self.time.verify else { return false };
        let now = u64::from(self.time.now());
        self.pieces(offset, length).all(|piece| {
            let found = u64::from(self.found[piece].load(Ordering::Relaxed));
            found > 0 && now.saturating_sub(found) < lifetime.as_secs()
        })
    }

    /// Reads all pieces that these bytes are in, and looks whether they are right. Blocks.
    ///
    /// # Errors
    /// They are not ([`is_lost`]), or the disk fails.
    pub fn check(&self, file: &File, offset: u64, length: usize) -> io::Result<()> {
        let mut scratch = vec![0; PIECE];
        for piece in self.pieces(offset, length) {
            let at = (piece * PIECE) as u64;
            let is_right = match &self.sums {
                Some(sums) => {
                    let bytes = &mut scratch[..PIECE.min((sums.size - at) as usize)];
                    file.read_exact_at(bytes, at)?;
                    crc32fast::hash(bytes) == sums.each[piece]
                }
                None => {
                    let size = file.metadata()?.len().min(PIECE as u64) as usize;
                    let bytes = &mut scratch[..size];
                    file.read_exact_at(bytes, at)?;
                    self.digest.matches(bytes)
                }
            };
            if !is_right {
                self.found[piece].store(0, Ordering::Relaxed);
                return Err(io::Error::new(io::ErrorKind::InvalidData, Damage { digest: self.digest, at }));
            }
            self.found[piece].store(self.time.now(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Those that bytes are in. Bytes that lie outside are in none: reading them fails by itself.
    fn pieces(&self, offset: u64, length: usize) -> std::ops::Range<usize> {
        let first = (offset / PIECE as u64) as usize;
        let end = (offset + length as u64).div_ceil(PIECE as u64) as usize;
        first.min(self.found.len())..end.min(self.found.len())
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proof({}, {} pieces)", self.digest, self.found.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sums::Summer;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn stored(content: &[u8]) -> (File, Digest, Sums) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        let mut summer = Summer::default();
        summer.update(content);
        (file, Digest::sha256(content), summer.finish())
    }

    #[test]
    fn what_was_checked_is_fresh_until_its_time_is_over_and_only_that() {
        let (clock, content) = (Clock::system(), vec![3; 4 * PIECE]);
        let (file, digest, sums) = stored(&content);
        let proofs = Proofs::new(clock.clone(), Verify::After(MINUTE));
        let proof = proofs.remember(digest, Some(sums.clone()), 0);
        proof.check(&file, PIECE as u64 + 5, 10).unwrap();
        assert!(proof.is_fresh(PIECE as u64, PIECE) && !proof.is_fresh(PIECE as u64, PIECE + 1));
        assert!(!proof.is_fresh(PIECE as u64 - 1, 2));
        clock.advance(MINUTE);
        assert!(!proof.is_fresh(PIECE as u64, PIECE));

        let proof = proofs.proven(&digest, sums.clone()).unwrap();
        assert!(proof.is_fresh(0, content.len()), "what was just hashed");
        let always = Proofs::new(clock.clone(), Verify::Always);
        assert!(!always.proven(&digest, sums.clone()).unwrap().is_fresh(0, 1));
        assert!(Proofs::new(clock, Verify::Never).proven(&digest, sums).is_none());
    }

    #[test]
    fn a_wrong_byte_is_found_in_its_piece_and_in_no_other() {
        let clock = Clock::system();
        for size in [1, PIECE, 3 * PIECE + 9] {
            let (file, digest, sums) = stored(&vec![3; size]);
            let proofs = Proofs::new(clock.clone(), Verify::After(MINUTE));
            let sums = Sums::are_kept_for(size as u64).then_some(sums);
            let proof = proofs.remember(digest, sums, 0);
            proof.check(&file, 0, size).unwrap();
            file.write_all_at(&[4], size as u64 - 1).unwrap();
            let last = (size as u64 - 1) / PIECE as u64 * PIECE as u64;
            assert!(is_lost(&proof.check(&file, size as u64 - 1, 1).unwrap_err()), "{size}");
            assert!(!proof.is_fresh(size as u64 - 1, 1));
            proof.check(&file, 0, last as usize).unwrap();
        }
    }
}
