//! How much disk the cache may use, and does: room is taken before bytes are written, so that the limit holds at every
//! moment.
//!
//! Counted are whole blocks of [`BLOCK`] bytes for the length of each cached blob, of its sums, and of each file on its way
//! in: that is what ext4 and XFS take for such a file in the end, and it does not depend on when they decide to. Not counted:
//! links and tags, the index, what is hosted, and a file whose name is gone while someone still reads it. Never removes
//! anything.
//!
//! What was ours and was deleted is taken over where there is room for it; until then it is garbage, and not counted. What was
//! here at start is counted while the server serves already; until that is done nothing is granted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::StorageError;
use super::print::Print;
use super::sums::Sums;
use crate::clock::Clock;
use crate::oci::Digest;

/// Bytes that a file's length is rounded up to.
const BLOCK: u64 = 4096;
/// Bytes by which a file of unknown length grows.
const STEP: u64 = 1 << 20;
/// Bytes that are made free for a push that found none: it says only what comes next.
const FOR_PUSHES: u64 = 64 << 20;
/// How long the file system is believed to have the room that it said it has, but for what was granted since.
const SAMPLED: Duration = Duration::from_secs(1);

/// How much the cache may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of cached blobs, those on their way in included.
    pub max_size: u64,
    /// Bytes of the file system that are left free.
    pub min_free: u64,
}

/// Bytes on disk for so many bytes of content, and the sums of their pieces.
pub fn footprint(length: u64) -> u64 {
    blocks(length).saturating_add(blocks(Sums::length_for(length)))
}

fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What is used now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By complete blobs.
    pub blobs: u64,
    /// By what was left half-way in.
    pub parts: u64,
    /// Granted to what is on its way in.
    pub reserved: u64,
    /// By blobs that were ours, and for which there is no room: not the cache's yet.
    pub released: u64,
}

impl Usage {
    /// All that is the cache's.
    pub fn total(self) -> u64 {
        self.blobs + self.parts + self.reserved
    }
}

/// The account. Clones share it.
#[derive(Clone)]
pub struct Space {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    directory: PathBuf,
    clock: Clock,
    account: Mutex<Account>,
    counted: watch::Sender<bool>,
}

struct Account {
    // As many as there are cached blobs, each with its blocks on disk: 16 bytes, and what the tree takes.
    blobs: BTreeMap<Print, u32>,
    // What was ours and is to be taken over when there is room.
    released: BTreeMap<Print, u32>,
    // As many as there are files in ingest/ that nobody writes to.
    parts: HashMap<Digest, u64>,
    usage: Usage,
    free: Option<(Instant, u64)>,
    // Whether something that is not the cache's was refused lately.
    others_lack: bool,
    // What went while those found at start are counted: whoever counts may have seen it before.
    gone_meanwhile: Option<HashSet<Print>>,
}

/// Counts what is here at start, for as long as someone wants to know.
pub struct Counting {
    inner: Weak<Inner>,
}

impl Counting {
    /// Whether anyone still wants to know.
    pub fn is_wanted(&self) -> bool {
        self.inner.strong_count() > 0
    }

    /// A blob of `length` bytes was found.
    pub fn found(&self, digest: &Digest, length: u64) {
        let Some(inner) = self.inner.upgrade() else { return };
        let (mut account, print) = (inner.lock(), Print::of(digest));
        let has_gone = account.gone_meanwhile.as_ref().is_none_or(|gone| gone.contains(&print));
        // One that came meanwhile is counted as what it is now.
        if !has_gone && !account.blobs.contains_key(&print) {
            account.forget_released(print);
            account.keep(print, blocks_of(footprint(length)));
        }
    }

    /// That was all.
    pub fn done(self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.lock().gone_meanwhile = None;
            inner.counted.send_replace(true);
        }
    }
}

fn blocks_of(bytes: u64) -> u32 {
    u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX)
}

fn bytes_of(blocks: u32) -> u64 {
    u64::from(blocks) * BLOCK
}

impl Space {
    /// The account of `directory`, and the right to say once what is in it already.
    pub fn new(limits: Limits, directory: PathBuf, clock: Clock) -> (Space, Counting) {
        let account = Mutex::new(Account {
            blobs: BTreeMap::new(),
            released: BTreeMap::new(),
            parts: HashMap::new(),
            usage: Usage::default(),
            free: None,
            others_lack: false,
            gone_meanwhile: Some(HashSet::new()),
        });
        let counted = watch::Sender::new(false);
        let inner = Arc::new(Inner { limits, directory, clock, account, counted });
        let counting = Counting { inner: Arc::downgrade(&inner) };
        (Space { inner }, counting)
    }

    /// Waits until what was here at start is counted.
    pub async fn counted(&self) {
        // The sender lives as long as we do.
        let _ = self.inner.counted.subscribe().wait_for(|counted| *counted).await;
    }

    /// What is allowed.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// What is used.
    pub fn usage(&self) -> Usage {
        self.lock().usage
    }

    /// Takes room for a file of `length` bytes.
    ///
    /// # Errors
    /// There is none, or it is not known yet what is used.
    pub fn reserve(&self, length: u64) -> Result<Room, StorageError> {
        let room = Room { held: Arc::new(Held { space: self.clone(), bytes: Mutex::new(0) }) };
        room.cover_exactly(length)?;
        Ok(room)
    }

    /// Bytes that have to go before a file of `length` bytes fits, for which so many are `held` already; `None`: it never
    /// will.
    pub fn lacking(&self, length: u64, held: u64) -> Option<u64> {
        let Limits { max_size, min_free } = self.inner.limits;
        // With the block of a mark.
        let wanted = footprint(length).saturating_add(BLOCK);
        let more = wanted.saturating_sub(held);
        let over = self.usage().total().saturating_add(more).saturating_sub(max_size);
        let short = min_free.saturating_add(more).saturating_sub(free_bytes(&self.inner.directory));
        (wanted <= max_size).then_some(over.max(short))
    }

    /// Whether `length` bytes that are not the cache's leave the file system what must be free of it.
    ///
    /// # Errors
    /// They do not.
    pub fn spare(&self, length: u64) -> Result<(), StorageError> {
        let (min_free, directory) = (self.inner.limits.min_free, &self.inner.directory);
        if min_free == 0 || free_bytes(directory) >= min_free.saturating_add(length) {
            return Ok(());
        }
        self.lock().others_lack = true;
        Err(StorageError::NoSpace { doing: "leaving min_free of the file system of", path: directory.clone() })
    }

    /// Bytes that have to go before what was refused since the last call is taken.
    pub fn others_lack(&self) -> u64 {
        if !std::mem::take(&mut self.lock().others_lack) {
            return 0;
        }
        let wanted = self.inner.limits.min_free.saturating_add(FOR_PUSHES);
        wanted.saturating_sub(free_bytes(&self.inner.directory))
    }

    /// A blob of `length` bytes is here.
    pub fn kept(&self, digest: &Digest, length: u64) {
        let mut account = self.lock();
        account.forget_released(Print::of(digest));
        account.keep(Print::of(digest), blocks_of(footprint(length)));
    }

    /// A blob of `length` bytes that is here was ours, and is nobody's or the cache's from now on.
    pub fn released(&self, digest: &Digest, length: u64) {
        let (mut account, print, now) = (self.lock(), Print::of(digest), blocks_of(footprint(length)));
        if account.blobs.contains_key(&print) {
            return;
        }
        account.forget_released(print);
        account.usage.released += bytes_of(now);
        account.released.insert(print, now);
        account.take_over(self.inner.limits.max_size);
    }

    /// A blob is not here any more, or not the cache's.
    pub fn gone(&self, digest: &Digest) {
        let (mut account, print) = (self.lock(), Print::of(digest));
        let before = account.blobs.remove(&print).unwrap_or(0);
        account.usage.blobs -= bytes_of(before);
        account.forget_released(print);
        account.take_over(self.inner.limits.max_size);
        if let Some(gone) = &mut account.gone_meanwhile {
            gone.insert(print);
        }
        // What the file system has free is asked anew.
        account.free = None;
    }

    /// Something half-way in was left behind, or found at start.
    pub fn left(&self, digest: &Digest, length: u64) {
        let mut account = self.lock();
        // With the block of its mark.
        let now = footprint(length) + BLOCK;
        let before = account.parts.insert(*digest, now).unwrap_or(0);
        account.usage.parts = account.usage.parts - before + now;
    }

    /// Something half-way in is gone on with, or gone.
    pub fn taken_up(&self, digest: &Digest) {
        let mut account = self.lock();
        let before = account.parts.remove(digest).unwrap_or(0);
        account.usage.parts -= before;
        // What was released does not get this room: whoever goes on with the file asks for it at once.
        account.free = None;
    }

    /// What is half-way in and nobody's.
    pub fn parts(&self) -> Vec<Digest> {
        self.lock().parts.keys().copied().collect()
    }

    fn grant(&self, more: u64) -> Result<(), StorageError> {
        let Limits { max_size, min_free } = self.inner.limits;
        let now = self.inner.clock.tick();
        let mut account = self.lock();
        if account.gone_meanwhile.is_some() {
            return Err(StorageError::Uncounted);
        }
        if account.usage.total().saturating_add(more) > max_size {
            return Err(StorageError::NoRoom);
        }
        let sampled = account.free.filter(|(at, _)| now.saturating_duration_since(*at) < SAMPLED);
        let free = match sampled {
            Some((_, free)) => free,
            None => {
                let free = free_bytes(&self.inner.directory);
                account.free = Some((now, free));
                free
            }
        };
        if free < min_free.saturating_add(more) {
            return Err(StorageError::NoRoom);
        }
        account.free = account.free.map(|(at, free)| (at, free - more));
        account.usage.reserved += more;
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        let mut account = self.lock();
        account.usage.reserved -= bytes;
        account.take_over(self.inner.limits.max_size);
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.inner.lock()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn keep(&mut self, print: Print, blocks: u32) {
        let before = self.blobs.insert(print, blocks).unwrap_or(0);
        self.usage.blobs = self.usage.blobs - bytes_of(before) + bytes_of(blocks);
    }

    fn forget_released(&mut self, print: Print) {
        let before = self.released.remove(&print).unwrap_or(0);
        self.usage.released -= bytes_of(before);
    }

    /// Counts what was released, as far as there is room for it.
    fn take_over(&mut self, max_size: u64) {
        let fits = |account: &Account| {
            let left = max_size.saturating_sub(account.usage.total());
            account
                .released
                .iter()
                .find(|(_, blocks)| bytes_of(**blocks) <= left)
                .map(|(print, blocks)| (*print, *blocks))
        };
        while let Some((print, blocks)) = fits(self) {
            self.forget_released(print);
            self.keep(print, blocks);
        }
    }
}

/// What a file system that cannot be asked is believed to have: the writes themselves will tell.
fn free_bytes(directory: &std::path::Path) -> u64 {
    rustix::fs::statvfs(directory).map_or(u64::MAX, |free| free.f_bavail.saturating_mul(free.f_frsize))
}

/// Room that was taken for one file. Clones share it; given back when the last is dropped.
#[derive(Clone)]
pub struct Room {
    held: Arc<Held>,
}

struct Held {
    space: Space,
    bytes: Mutex<u64>,
}

impl Room {
    /// Bytes that it is for.
    pub fn bytes(&self) -> u64 {
        *self.held.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it enough for `length` bytes; grows by a step if it has to.
    ///
    /// # Errors
    /// There is no more.
    pub fn cover(&self, length: u64) -> Result<(), StorageError> {
        if footprint(length) + BLOCK <= self.bytes() {
            return Ok(());
        }
        self.cover_exactly(length.saturating_add(STEP)).or_else(|_| self.cover_exactly(length))
    }

    /// Makes it enough for `length` bytes, and no more.
    ///
    /// # Errors
    /// There is no more.
    pub fn cover_exactly(&self, length: u64) -> Result<(), StorageError> {
        let mut held = self.held.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // With the block of the file's mark.
        let more = footprint(length).saturating_add(BLOCK).saturating_sub(*held);
        self.held.space.grant(more)?;
        *held += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.space.give_back(bytes);
    }
}

/// Length of a file, or nothing if it is not there.
pub fn length_of(path: &std::path::Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space(max_size: u64, min_free: u64) -> Space {
        let (space, counting) = Space::new(Limits { max_size, min_free }, std::env::temp_dir(), Clock::system());
        counting.done();
        space
    }

    #[test]
    fn room_is_granted_to_the_last_block_and_given_back() {
        let space = space(10 * BLOCK, 0);
        let first = space.reserve(5 * BLOCK).unwrap();
        assert!(matches!(space.reserve(4 * BLOCK), Err(StorageError::NoRoom)), "a mark has a block, too");
        let second = space.reserve(3 * BLOCK - 5).unwrap();
        assert_eq!(space.usage().reserved, 10 * BLOCK);
        assert!(second.cover(3 * BLOCK + 1).is_err());
        drop((first, second));
        assert_eq!(space.usage().total(), 0);
        assert_eq!((space.lacking(9 * BLOCK, 0), space.lacking(10 * BLOCK, 0)), (Some(0), None));
    }

    #[test]
    fn what_the_file_system_must_keep_free_is_not_granted() {
        assert!(matches!(space(u64::MAX / 4, u64::MAX / 2).reserve(1), Err(StorageError::NoRoom)));
    }

    #[test]
    fn what_comes_and_goes_while_the_rest_is_counted_is_counted_once_or_not_at_all() {
        let limits = Limits { max_size: 100 * BLOCK, min_free: 0 };
        let (space, counting) = Space::new(limits, std::env::temp_dir(), Clock::system());
        let [found, came, went, again] = [1u8, 2, 3, 4].map(|n| Digest::sha256(&[n]));
        assert!(matches!(space.reserve(1), Err(StorageError::Uncounted)));
        space.kept(&came, 3 * BLOCK);
        space.gone(&went);
        space.gone(&again);
        space.kept(&again, BLOCK);
        for digest in [found, came, went, again] {
            counting.found(&digest, 2 * BLOCK);
        }
        let before = space.usage().blobs;
        counting.done();
        let one = footprint(2 * BLOCK) + footprint(3 * BLOCK) + footprint(BLOCK);
        assert_eq!((before, space.usage().total()), (one, one));
        space.reserve(1).unwrap();
    }

    #[test]
    fn what_was_ours_is_counted_as_soon_as_there_is_room_for_it() {
        let space = space(9 * BLOCK, 0);
        let [ours, theirs] = [1u8, 2].map(|n| Digest::sha256(&[n]));
        space.kept(&theirs, 7 * BLOCK);
        space.released(&ours, 3 * BLOCK);
        let used = |blobs: u64, released: u64| Usage { blobs, released, ..Usage::default() };
        let (three, seven) = (footprint(3 * BLOCK), footprint(7 * BLOCK));
        assert_eq!(space.usage(), used(seven, three));
        space.gone(&theirs);
        assert_eq!(space.usage(), used(three, 0));
        space.released(&ours, 3 * BLOCK);
        assert_eq!(space.usage(), used(three, 0), "it is counted once");
        space.gone(&ours);
        assert_eq!(space.usage(), Usage::default());
    }

    proptest! {
        #[test]
        fn the_limit_holds_whatever_is_asked_for(steps in prop::collection::vec((0u8..6, 0u64..8, 0u64..40_000), 1..200)) {
            let space = space(30 * BLOCK, 0);
            let mut rooms = HashMap::new();
            for (step, which, length) in steps {
                let digest = Digest::sha256(&which.to_le_bytes());
                match step {
                    0 | 1 => if let Ok(room) = space.reserve(length) {
                        rooms.insert(which, (room, length));
                    },
                    2 => if let Some((room, _)) = rooms.get(&which) {
                        let _ = room.cover(length);
                    },
                    3 => if let Some((room, length)) = rooms.remove(&which) {
                        space.kept(&digest, length);
                        drop(room);
                    },
                    4 => space.released(&digest, length),
                    _ => space.gone(&digest),
                }
                prop_assert!(space.usage().total() <= 30 * BLOCK, "{:?}", space.usage());
            }
            rooms.clear();
            prop_assert_eq!(space.usage().reserved, 0);
        }
    }
}
