//! Where the index lies on disk: its directory, the epoch file beside it, what was set aside, the ballast. Never opens
//! the database.
//!
//! ```text
//! index/sled-<id>/       the database; no two ever have the same name
//! index/ballast          room that is given up when the disk is full
//! index.epoch            which database is the right one (epoch.rs)
//! index.begins           a session is about to begin, and may have seen files change before it had the database open
//! index.bad-<unix time>  the last one that was wrong
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::sync_mode::{SyncMode, sync_directory};

/// How many times the ballast has to be free before it is laid.
const PLENTY: u64 = 16;

/// Where the index lies.
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    pub(super) fn new(directory: PathBuf) -> Place {
        Place { directory }
    }

    /// The file that says which database is the right one.
    pub(super) fn epoch(&self) -> PathBuf {
        self.beside(".epoch")
    }

    /// Notes that a session is about to begin, before anything can be recorded in it. Says whether the one before came no
    /// further than that: then what was recorded in it stands in the files alone.
    pub(super) fn announce_session(&self) -> io::Result<bool> {
        let note = self.beside(".begins");
        if fs::exists(&note)? {
            return Ok(true);
        }
        File::create(note)?;
        self.directory.parent().map_or(Ok(()), sync_directory)?;
        Ok(false)
    }

    /// Takes the note away: the epoch file says from now on that a session runs.
    pub(super) fn session_has_begun(&self) {
        // Should it stay, the next start compares once for nothing.
        let _stays = fs::remove_file(self.beside(".begins"));
    }

    /// The directory of a database.
    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether nothing was ever made here.
    pub(super) fn is_vacant(&self) -> io::Result<bool> {
        match fs::read_dir(&self.directory) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory for a new database, in which every write will be synchronous if the file system can do that.
    pub(super) fn make_home(&self, name: &str) -> io::Result<()> {
        let home = self.home(name);
        fs::create_dir_all(&home)?;
        SyncMode::request(&self.directory)?;
        SyncMode::request(&home)?;
        self.directory.parent().map_or(Ok(()), sync_directory)
    }

    /// Takes the index out of the way, for someone to look at; the one before it is deleted.
    pub(super) fn set_aside(&self, unix_seconds: u64) -> io::Result<()> {
        self.give_up_ballast();
        for old in self.set_aside_before()? {
            fs::remove_dir_all(old)?;
        }
        if !fs::exists(&self.directory)? {
            return Ok(());
        }
        fs::rename(&self.directory, self.beside(&format!(".bad-{unix_seconds}")))
            .or_else(|_| fs::remove_dir_all(&self.directory))
    }

    /// Keeps room for the day on which the disk is full. Where there is little of it to begin with, content needs it more;
    /// and where the file system cannot, there is none.
    pub(super) fn lay_ballast(&self, bytes: u64) {
        let path = self.ballast();
        let free = rustix::fs::statvfs(&self.directory).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if bytes == 0 || path.exists() || free / PLENTY < bytes {
            return;
        }
        let Ok(file) = File::create(&path) else { return };
        if fallocate(&file, FallocateFlags::empty(), 0, bytes).is_err() {
            self.give_up_ballast();
        }
    }

    /// Frees the room.
    pub(super) fn give_up_ballast(&self) {
        // Missing, or on a disk that refuses even this: either way there is nothing to gain here.
        let _missing = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.name();
        name.push(ending);
        self.directory.with_file_name(name)
    }

    fn set_aside_before(&self) -> io::Result<Vec<PathBuf>> {
        let mut prefix = self.name();
        prefix.push(".bad-");
        let mut found = Vec::new();
        for entry in fs::read_dir(self.directory.parent().unwrap_or(Path::new(".")))? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn name(&self) -> OsString {
        self.directory.file_name().unwrap_or_default().to_owned()
    }
}
