//! Making things last: the order of syncs after which a file is there whatever happens next.
//!
//! The order is: write, sync the file, rename, sync the directory. Without the first sync a power cut leaves empty files
//! under good names, without the last it takes the name away again (both measured, docs/decisions/0003).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

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

/// Moves a finished temporary file to `path`, replacing what is there: afterwards it is there, whole, for good.
pub fn publish(temporary: NamedTempFile, path: &Path) -> Result<File, StorageError> {
    temporary.as_file().sync_data().map_err(StorageError::io("syncing", temporary.path()))?;
    let file = temporary.persist(path).map_err(|failed| StorageError::io("renaming to", path)(failed.error))?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(file)
}

/// Replaces the small file at `path` atomically. Its directory is made if need be; `staging` is on the same file system.
///
/// The content is one line, led by its checksum: a file system that lost a write must not be believed.
pub fn replace(path: &Path, staging: &Path, content: &[u8]) -> Result<(), StorageError> {
    if let Some(directory) = path.parent() {
        create_directory(directory)?;
    }
    let mut temporary = NamedTempFile::new_in(staging).map_err(StorageError::io("creating a file in", staging))?;
    let sum = format!("{:08x} ", crc32fast::hash(content));
    [sum.as_bytes(), content, b"\n"]
        .into_iter()
        .try_for_each(|part| temporary.write_all(part))
        .map_err(StorageError::io("writing", path))?;
    publish(temporary, path).map(|_file| ())
}

/// Reads what [`replace`] wrote. A file that is damaged counts as absent, and a log line says so.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(StorageError::io("reading", path)(error)),
    };
    let content = unsum(&bytes);
    if content.is_none() {
        tracing::warn!(path = %path.display(), "a small file is damaged and counts as absent");
    }
    Ok(content.map(<[u8]>::to_vec))
}

fn unsum(bytes: &[u8]) -> Option<&[u8]> {
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
