//! Taking a data directory: one process at a time, and only a layout that this version knows.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::durable;
use super::error::StorageError;
use super::layout::{self, Layout};

/// How long a blob that is half here is worth going on with.
const RESUMABLE: Duration = Duration::from_secs(24 * 3600);

const VERSION: &str = "larder data directory, layout 1\n";

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("data_dir {0} is in use by another larder: stop that one, or give this one a data_dir of its own")]
    InUse(PathBuf),
    /// It was written by a version that this one does not know, or by something else.
    #[error("data_dir {path} has layout {found:?}, which this version does not know: use the version that wrote it")]
    UnknownLayout {
        /// The directory.
        path: PathBuf,
        /// The first line of its VERSION file.
        found: String,
    },
    /// It holds other things.
    #[error("data_dir {0} is not empty and not Larder's: name an empty or a new directory")]
    NotOurs(PathBuf),
    /// The disk failed.
    #[error("data_dir: {0}")]
    Storage(#[from] StorageError),
}

/// A data directory that is ours as long as this lives.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

/// Whether some larder made this its data directory.
pub fn is_data_directory(path: &Path) -> bool {
    Layout::new(path.to_owned()).version().is_file()
}

/// Takes the directory, and makes what is missing in it.
///
/// # Errors
/// It is someone else's, of an unknown layout, or the disk refuses. Nothing in it was changed then.
pub fn claim(layout: &Layout, now: SystemTime) -> Result<Claim, OpenError> {
    let root = layout.root();
    durable::create_directory(root)?;
    let version = match fs::read_to_string(layout.version()) {
        Ok(version) => Some(version),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(StorageError::io("reading", &layout.version())(error).into()),
    };
    match version.as_deref() {
        // An older layout will be known here, and be brought up to date once the lock is held and before anything else
        // looks; VERSION is replaced last. tests/fixtures has a directory of each that was released.
        Some(VERSION) => {}
        Some(other) => {
            let found = other.lines().next().unwrap_or_default().chars().take(80).collect();
            return Err(OpenError::UnknownLayout { path: root.to_owned(), found });
        }
        None if is_foreign(layout)? => return Err(OpenError::NotOurs(root.to_owned())),
        None => {}
    }
    let lock = lock(layout)?;
    if version.is_none() {
        durable::write(&layout.version(), layout.root(), &[VERSION.as_bytes()])?;
    }
    prepare(layout, now)?;
    Ok(Claim { _lock: lock })
}

fn lock(layout: &Layout) -> Result<File, OpenError> {
    let path = layout.lock();
    let lock = File::options().create(true).append(true).open(&path).map_err(StorageError::io("opening", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(layout.root().to_owned())),
        Err(TryLockError::Error(error)) => Err(StorageError::io("locking", &path)(error).into()),
    }
}

/// A first start that was killed leaves a LOCK, or a VERSION that was never renamed; a fresh file system `lost+found`.
fn is_foreign(layout: &Layout) -> Result<bool, StorageError> {
    let entries = fs::read_dir(layout.root()).map_err(StorageError::io("listing", layout.root()))?;
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name != "LOCK" && name != "lost+found" && !name.starts_with(".tmp")
    }))
}

fn prepare(layout: &Layout, now: SystemTime) -> Result<(), StorageError> {
    for directory in [layout.cached(), layout.hosted(), layout.uploads(), layout.quarantine(), layout.ingest()] {
        durable::create_directory(&directory)?;
    }
    clear_ingest(layout, now)?;
    let mut parents = Vec::new();
    for directory in layout.blob_directories() {
        if directory.is_dir() {
            continue;
        }
        fs::create_dir_all(&directory).map_err(StorageError::io("creating directory", &directory))?;
        parents.extend(directory.parent().map(ToOwned::to_owned));
    }
    parents.dedup();
    if parents.is_empty() {
        return Ok(());
    }
    parents.extend([layout.blobs(), layout.root().to_owned()]);
    parents.iter().try_for_each(|directory| durable::sync_directory(directory))
}

/// What was on its way in when the last process ended is gone on with while it is young; the rest is nobody's.
fn clear_ingest(layout: &Layout, now: SystemTime) -> Result<(), StorageError> {
    let directory = layout.ingest();
    for entry in fs::read_dir(&directory).map_err(StorageError::io("listing", &directory))?.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_young = modified.is_ok_and(|at| now.duration_since(at).unwrap_or_default() < RESUMABLE);
        if !(is_young && layout::is_resumable(&entry.path())) {
            // One that cannot be removed is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn now() -> SystemTime {
        Clock::system().wall()
    }

    #[test]
    fn what_is_half_here_is_kept_for_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("data"));
        drop(claim(&layout, now()).unwrap());
        let part = layout.part(&crate::oci::Digest::sha256(b"x"));
        for file in [&part, &part.with_extension("mark"), &layout.ingest().join(".tmpAbCdEf")] {
            fs::write(file, "x").unwrap();
        }
        let left = |now| {
            drop(claim(&layout, now).unwrap());
            fs::read_dir(layout.ingest()).unwrap().count()
        };
        assert_eq!(left(now()), 2);
        assert_eq!(left(now() + Duration::from_secs(25 * 3600)), 0);
    }

    #[test]
    fn a_second_process_is_refused_and_the_first_unharmed() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("data"));
        let first = claim(&layout, now()).unwrap();
        assert!(matches!(claim(&layout, now()), Err(OpenError::InUse(_))));
        drop(first);
        claim(&layout, now()).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(claim(&Layout::new(directory.path().into()), now()), Err(OpenError::NotOurs(_))));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().into());
        fs::write(layout.version(), "larder data directory, layout 9\n").unwrap();
        assert!(matches!(claim(&layout, now()), Err(OpenError::UnknownLayout { .. })));
    }
}
