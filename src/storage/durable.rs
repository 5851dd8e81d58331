//! Making things last: the order of syncs after which a file is there whatever happens next.
//!
//! The order is: write, sync the file, rename, sync the directory. Without the first sync a power cut leaves empty files
//! under good names, without the last it takes the name away again (both measured, docs/decisions/0003).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::error::StorageError;

/// Creates `path` and what is missing above it, durably.
pub fn create_directory(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directory(parent)?;
        make(path)?;
        return sync_directory(parent);
    }
    make(path)
}

fn make(path: &Path) -> Result<(), StorageError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StorageError::io("creating directory", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the names in `directory` last.
pub fn sync_directory(directory: &Path) -> Result<(), StorageError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(StorageError::io("syncing directory", directory))
}

/// Moves a finished file to `target`, replacing what is there: afterwards it is there, whole, for good.
pub fn publish(file: &File, path: TempPath, target: &Path) -> Result<(), StorageError> {
    file.sync_data().map_err(StorageError::io("syncing", &path))?;
    persist(path, target)?;
    target.parent().map_or(Ok(()), sync_directory)
}

fn persist(path: TempPath, target: &Path) -> Result<(), StorageError> {
    path.persist(target).map_err(|failed| StorageError::io("renaming to", target)(failed.error))
}

/// A file of ours with `parts` in it, made in `staging` and moved to `target`.
pub fn write(target: &Path, staging: &Path, parts: &[&[u8]]) -> Result<(), StorageError> {
    write_unnamed(target, staging, parts)?;
    target.parent().map_or(Ok(()), sync_directory)
}

/// The same without the last sync: whoever publishes something else in that directory makes the name last.
pub fn write_unnamed(target: &Path, staging: &Path, parts: &[&[u8]]) -> Result<(), StorageError> {
    persist(stage(staging, target, parts)?, target)
}

/// A file with `parts` in it that lasts, and is to become `target`.
fn stage(staging: &Path, target: &Path, parts: &[&[u8]]) -> Result<TempPath, StorageError> {
    let failed = StorageError::io("creating a file in", staging);
    let (mut file, path) = NamedTempFile::new_in(staging).map_err(failed)?.into_parts();
    parts.iter().try_for_each(|part| file.write_all(part)).map_err(StorageError::io("writing", target))?;
    file.sync_data().map_err(StorageError::io("syncing", &path))?;
    Ok(path)
}

/// Replaces the small file at `path` atomically. Its directory is made if need be; `staging` is on the same file system.
///
/// The content is one line, led by its checksum: a file system that lost a write must not be believed.
pub fn replace(path: &Path, staging: &Path, content: &[u8]) -> Result<(), StorageError> {
    if let Some(directory) = path.parent() {
        create_directory(directory)?;
    }
    write(path, staging, &[&summed(content)])
}

/// As [`replace`], for several files of one directory that get the same content. None of them changes before all are written,
/// so that a disk that fills up changes none.
pub fn replace_all(directory: &Path, names: &[&str], staging: &Path, content: &[u8]) -> Result<(), StorageError> {
    create_directory(directory)?;
    let content = summed(content);
    let stage = |name: &&str| {
        let target = directory.join(name);
        Ok((stage(staging, &target, &[&content])?, target))
    };
    let staged = names.iter().map(stage).collect::<Result<Vec<(TempPath, PathBuf)>, StorageError>>()?;
    let renamed = staged.into_iter().try_for_each(|(path, target)| persist(path, &target));
    sync_directory(directory)?;
    renamed
}

fn summed(content: &[u8]) -> Vec<u8> {
    let sum = format!("{:08x} ", crc32fast::hash(content));
    [sum.as_bytes(), content, b"\n"].concat()
}

/// What a small file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Small {
    /// It is not there.
    Absent,
    /// It is there, and not what was written.
    Damaged,
    /// What was written.
    Whole(Vec<u8>),
}

/// Reads what [`replace`] wrote. A file that is damaged counts as absent, and a log line says so.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(match look(path)? {
        Small::Whole(content) => Some(content),
        Small::Absent => None,
        Small::Damaged => {
            tracing::warn!(path = %path.display(), "a small file is damaged and counts as absent");
            None
        }
    })
}

/// Reads what [`replace`] wrote, where damage is not to be passed over: nobody else has what stood there.
pub fn read_ours(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match look(path)? {
        Small::Whole(content) => Ok(Some(content)),
        Small::Absent => Ok(None),
        Small::Damaged => Err(StorageError::Damaged { path: path.to_owned() }),
    }
}

/// Reads what [`replace`] wrote.
pub fn look(path: &Path) -> Result<Small, StorageError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Small::Absent);
        }
        Err(error) => return Err(StorageError::io("reading", path)(error)),
    };
    Ok(unsum(&bytes).map_or(Small::Damaged, |content| Small::Whole(content.to_vec())))
}

/// Removes a file that may not be there, without a sync: a power cut may bring it back.
pub fn unlink(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(StorageError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file for good. Says whether it was there.
pub fn remove(path: &Path) -> Result<bool, StorageError> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(StorageError::io("removing", path)(error)),
    }
    path.parent().map_or(Ok(()), sync_directory)?;
    Ok(true)
}

/// A small file that need not outlive a power cut, only the process: what [`replace`] writes, without its syncs.
pub fn note(path: &Path, content: &[u8]) -> Result<(), StorageError> {
    fs::write(path, summed(content)).map_err(StorageError::io("writing", path))
}

/// Whether there is nothing in a directory, or no directory.
pub fn is_empty(directory: &Path) -> Result<bool, StorageError> {
    match fs::read_dir(directory) {
        Ok(mut listing) => Ok(listing.next().is_none()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(true),
        Err(error) => Err(StorageError::io("listing", directory)(error)),
    }
}

/// The names in a directory of ours, and where they are. One that is not there has none; a name that is not UTF-8 is none
/// of ours.
pub fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, StorageError> {
    let failed = || StorageError::io("listing", directory);
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed()(error)),
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(failed())?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

pub(super) fn unsum(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_at_checked(9)?;
    let content = rest.strip_suffix(b"\n")?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    (u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(content)).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_read_back_replaced_and_believed_only_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/_tags/latest");
        assert_eq!(read(&path).unwrap(), None);
        for content in [&b"first"[..], b"", b"second, longer"] {
            replace(&path, directory.path(), content).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(content));
        }
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path).unwrap(), None, "cut at {cut}");
        }
        let mut flipped = whole.clone();
        flipped[12] ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
