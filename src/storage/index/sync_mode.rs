//! The inode flag that makes sled survive a power cut (reliability.md 0, 1), set and read back. Never opens the database.
//!
//! sled orders nothing and syncs little by itself. With `FS_SYNC_FL` on the directory, and so on every file made in it,
//! each of its writes is on disk before the next, at no loss of speed. Not every file system takes the flag.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Whether writes to a file are synchronous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncMode {
    /// They are, and in order.
    Synchronous,
    /// The file system took no flag: a power cut can leave anything.
    Refused,
}

impl SyncMode {
    /// How `file` is written.
    pub(super) fn of(file: &File) -> SyncMode {
        match ioctl_getflags(file) {
            Ok(flags) if flags.contains(IFlags::SYNC) => SyncMode::Synchronous,
            _ => SyncMode::Refused,
        }
    }

    /// Sets the flag on a directory, so that files made in it inherit it, and on the files that are there already, which
    /// lack it when they were copied here. A refusal is no error: [`SyncMode::of`] tells.
    pub(super) fn request(directory: &Path) -> io::Result<()> {
        set(&File::open(directory)?);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_file() || kind.is_dir() {
                set(&File::open(entry.path())?);
            }
        }
        sync_directory(directory)
    }
}

fn set(file: &File) {
    if let Ok(flags) = ioctl_getflags(file)
        && !flags.contains(IFlags::SYNC)
    {
        let _refused = ioctl_setflags(file, flags | IFlags::SYNC);
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
