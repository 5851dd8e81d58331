//! Opening a database: on a thread of its own, watched, and with a look at every row. Never decides what becomes of one
//! that cannot be opened.

use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::sleep;
use std::time::Duration;

use super::fault::Fault;
use super::key::{self, Key};
use super::record::{self, BlobRecord, SCHEMA, TagRecord};
use super::rows::Rows;
use super::sync_mode::SyncMode;
use super::table::Tally;
use super::thread;

/// For so long opening may make no progress.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked at whether someone wants the index closed instead.
const GLANCE: Duration = Duration::from_millis(50);
/// A handle that was just dropped keeps its lock for a moment.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// sled's drop writes what is left; but when a thread of sled's has panicked, it waits for ever.
const DROP_LIMIT: Duration = Duration::from_secs(10);

/// A database that was opened and is in order.
pub(super) struct Opened {
    pub(super) rows: Rows,
    pub(super) tally: Tally,
    /// The session that wrote to it last.
    pub(super) session: Vec<u8>,
}

/// Opens a database that exists, or makes a new one; breaks off when it stalls or is no longer wanted.
pub(super) fn open(home: &Path, new: bool, cache_capacity: u64, wanted: impl Fn() -> bool) -> Result<Opened, Fault> {
    let (home, progress) = (home.to_owned(), Arc::new(AtomicU64::new(0)));
    let mark = Arc::clone(&progress);
    let result = thread::run("larder-index-open", move || {
        if new { make(&home, cache_capacity) } else { look(&home, cache_capacity, &mark) }
    })?;
    let (mut stalled, mut last) = (Duration::ZERO, 0);
    loop {
        match result.recv_timeout(GLANCE) {
            Ok(opened) => return opened,
            Err(RecvTimeoutError::Disconnected) => return Err(Fault::Damaged("opening it panicked".to_owned())),
            Err(RecvTimeoutError::Timeout) if !wanted() => return Err(Fault::Disk("it is being closed".to_owned())),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = progress.load(Ordering::Relaxed);
        stalled = if now == last { stalled + GLANCE } else { Duration::ZERO };
        last = now;
        if stalled >= STALL_LIMIT {
            return Err(Fault::Damaged(format!("it did not open in {} s", STALL_LIMIT.as_secs())));
        }
    }
}

/// Drops a database, and with it sled's lock. False if that hangs; its files are then best left alone.
pub(super) fn close(rows: Rows) -> bool {
    let dropped = thread::run("larder-index-close", move || drop(rows));
    dropped.is_ok_and(|done| done.recv_timeout(DROP_LIMIT).is_ok())
}

fn make(home: &Path, cache_capacity: u64) -> Result<Opened, Fault> {
    let rows = Rows::open(home, cache_capacity)?;
    rows.put(key::SCHEMA, SCHEMA)?;
    Ok(Opened { rows, tally: Tally::default(), session: Vec::new() })
}

fn look(home: &Path, cache_capacity: u64, progress: &AtomicU64) -> Result<Opened, Fault> {
    if !home.join("db").is_file() {
        return Err(Fault::Damaged("its database is gone".to_owned()));
    }
    remove_unfinished_snapshots(home)?;
    SyncMode::request(home)?;
    let rows = open_unlocked(home, cache_capacity)?;
    if rows.get(key::SCHEMA)?.as_deref() != Some(SCHEMA) {
        return Err(Fault::Damaged("it is of another version, or has lost its beginning".to_owned()));
    }
    let Some(session) = rows.get(key::EPOCH)? else {
        return Err(Fault::Damaged("it does not say which session wrote it".to_owned()));
    };
    let tally = survey(&rows, progress)?;
    Ok(Opened { tally, session: session.to_vec(), rows })
}

/// sled takes a snapshot that it was killed in for the newest one, and then fails.
fn remove_unfinished_snapshots(home: &Path) -> Result<(), Fault> {
    for entry in fs::read_dir(home)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"snap.") && name.ends_with(b".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn open_unlocked(home: &Path, cache_capacity: u64) -> Result<Rows, Fault> {
    let mut attempts = 0;
    loop {
        match Rows::open(home, cache_capacity) {
            Err(fault) if attempts < LOCK_ATTEMPTS && fault.reason().contains("could not acquire lock") => {
                attempts += 1;
                sleep(LOCK_PAUSE);
            }
            result => return result,
        }
    }
}

/// Adds up all rows, and finds one that cannot be read.
fn survey(rows: &Rows, progress: &AtomicU64) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    for row in rows.scan(Bound::Included(&key::FIRST), &key::LAST) {
        let (key, value) = row?;
        if !is_sound(&key, &value) {
            return Err(Fault::unreadable(&key));
        }
        tally.add(&key, &value);
        progress.fetch_add(1, Ordering::Relaxed);
    }
    Ok(tally)
}

fn is_sound(key: &[u8], value: &[u8]) -> bool {
    match Key::parse(key) {
        Some(Key::Blob(_)) => BlobRecord::parse(value).is_some(),
        Some(Key::Holder(..)) => record::parse_holder(value).is_some(),
        Some(Key::Link(..)) => record::parse_link(value).is_some(),
        Some(Key::Tag(..)) => TagRecord::parse(value).is_some(),
        None => false,
    }
}
