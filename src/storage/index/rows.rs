//! The rows in sled, and the only file that names sled. Knows nothing of what the rows mean.
//!
//! Nothing of sled's escapes: a panic of its comes out as a [`Fault`], and so does an error. Rows are written one by one,
//! not in sled's batches: a batch takes a lock on which every reader of every tree waits, and its being atomic would buy
//! nothing, since an index that was not closed is compared with the files anyway.

use std::any::Any;
use std::fs::File;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::fault::Fault;
use super::record::VALUE_CAP;
use super::sync_mode::SyncMode;

/// A key or a value, as it was read.
pub(super) type Bytes = sled::IVec;

/// How often sled writes out by itself, in milliseconds.
const FLUSH_EVERY: u64 = 500;

/// An open database.
pub(super) struct Rows {
    database: sled::Db,
    file: File,
    sync_mode: SyncMode,
}

impl Rows {
    /// Opens the database in `home`, or makes it. May panic no more than it may fail, but can take long, or hang.
    pub(super) fn open(home: &Path, cache_capacity: u64) -> Result<Rows, Fault> {
        let database = guarded(|| {
            sled::Config::new()
                .path(home)
                .cache_capacity(cache_capacity)
                .flush_every_ms(Some(FLUSH_EVERY))
                .use_compression(false)
                .open()
        })?;
        let file = File::open(home.join("db"))?;
        let sync_mode = SyncMode::of(&file);
        Ok(Rows { database, file, sync_mode })
    }

    /// Whether what is written is also ordered and on disk.
    pub(super) fn sync_mode(&self) -> SyncMode {
        self.sync_mode
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        guarded(|| self.database.get(key))
    }

    /// Writes a row and returns what was there.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, Fault> {
        debug_assert!(value.len() <= VALUE_CAP, "record.rs proves that no record is longer");
        guarded(|| self.database.insert(key, value))
    }

    /// Removes a row and returns what was there.
    pub(super) fn remove(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        guarded(|| self.database.remove(key))
    }

    /// The rows from one key on and before another, in the keys' order.
    pub(super) fn scan(
        &self,
        from: Bound<&[u8]>,
        before: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), Fault>> + use<> {
        let mut rows = Some(self.database.range::<&[u8], _>((from, Bound::Excluded(before))));
        std::iter::from_fn(move || {
            let cursor = rows.as_mut()?;
            let row = guarded(|| cursor.next().transpose());
            // After a panic the cursor is not to be touched again.
            if row.is_err() {
                rows = None;
            }
            row.transpose()
        })
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        guarded(|| self.database.flush())?;
        match self.sync_mode {
            SyncMode::Synchronous => Ok(()),
            SyncMode::Refused => Ok(self.file.sync_data()?),
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(error.into()),
        Ok(Err(error)) => Err(Fault::Damaged(error.to_string())),
        Err(panic) => Err(Fault::Damaged(format!("sled panicked: {}", message(panic.as_ref())))),
    }
}

/// What a panic said, if it said something.
pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}
