//! A layout on disk. Every method blocks.
//!
//! ```text
//! oci-layout index.json
//! blobs/sha256/abcd…       content, complete and verified
//! larder/                  what is no image: files that other tools do not look at
//! larder/partial/          content on its way in; emptied by the next who writes
//! ```
//!
//! What was there before stays whole until a new index replaces the old one: content is never written in place.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::error::LayoutError;
use super::index::{Index, check_marker, marker};
use crate::oci::{Algorithm, Digest, Hasher};

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs";
const OURS: &str = "larder";
const PARTIAL: &str = "partial";
/// Longest `index.json` that is read, in bytes: some 600,000 images.
const MAX_INDEX: u64 = 256 << 20;
/// Bytes read and hashed at a time.
const STRIDE: usize = 1 << 20;

/// A layout. One writes it at a time, or several read it, where the file system can lock.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    _lock: File,
}

/// Content on its way in.
pub struct Incoming {
    file: NamedTempFile,
    hasher: Hasher,
    expected: Digest,
    target: PathBuf,
    size: u64,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files.
    pub blobs: u64,
    /// Their length together.
    pub bytes: u64,
}

impl Directory {
    /// A layout to read.
    ///
    /// # Errors
    /// There is none, or it is being written, or the disk fails.
    pub fn open(root: &Path) -> Result<Directory, LayoutError> {
        if !root.join(INDEX).is_file() || !root.join(MARKER).is_file() {
            return Err(LayoutError::Absent(root.to_owned()));
        }
        let lock = lock(root, File::try_lock_shared)?;
        let path = root.join(MARKER);
        let text = fs::read(&path).map_err(LayoutError::io("reading", &path))?;
        check_marker(&text).map_err(|reason| LayoutError::Unreadable { path, reason })?;
        Ok(Directory { root: root.to_owned(), _lock: lock })
    }

    /// A layout to write, made if there is nothing. What an earlier one left half-way in is removed.
    ///
    /// # Errors
    /// Something else is there, or it is in use, or the disk fails.
    pub fn claim(root: &Path) -> Result<Directory, LayoutError> {
        // Images may be private: who else may read a new one, its owner decides.
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700).create(root).map_err(LayoutError::io("creating directory", root))?;
        let lock = lock(root, File::try_lock)?;
        if is_foreign(root)? {
            return Err(LayoutError::NotALayout(root.to_owned()));
        }
        let directory = Directory { root: root.to_owned(), _lock: lock };
        let partial = directory.partial();
        // One that cannot be removed is in nobody's way.
        let _ = fs::remove_dir_all(&partial);
        for path in Algorithm::ALL.map(|algorithm| directory.content(algorithm)).iter().chain([&partial]) {
            fs::create_dir_all(path).map_err(LayoutError::io("creating directory", path))?;
        }
        Ok(directory)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it has; nothing if no index was ever written.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn index(&self) -> Result<Option<Index>, LayoutError> {
        let path = self.root.join(INDEX);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LayoutError::io("reading", &path)(error)),
        };
        let mut text = Vec::new();
        file.take(MAX_INDEX).read_to_end(&mut text).map_err(LayoutError::io("reading", &path))?;
        Index::from_json(&text).map(Some).map_err(|reason| LayoutError::Unreadable { path, reason })
    }

    /// How long some content is, if it is here. Says nothing of whether it is right.
    ///
    /// # Errors
    /// The disk fails.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, LayoutError> {
        let path = self.blob(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LayoutError::io("looking at", &path)(error)),
        }
    }

    /// All of some content, which is found right.
    ///
    /// # Errors
    /// It is missing, damaged, or longer than `limit` bytes; or the disk fails.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, LayoutError> {
        if self.size(digest)?.is_some_and(|size| size > limit) {
            return Err(LayoutError::TooLarge { digest: *digest, limit });
        }
        let mut content = Vec::new();
        self.check(digest, |piece| {
            content.extend_from_slice(piece);
            Ok::<(), LayoutError>(())
        })?;
        Ok(content)
    }

    /// Reads some content through and gives each piece to `each`, which is to do nothing final with them: whether they are
    /// right is known at the end only.
    ///
    /// # Errors
    /// It is missing or damaged, the disk fails, or `each` does.
    pub fn check<E: From<LayoutError>>(
        &self,
        digest: &Digest,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.blob(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LayoutError::Missing(*digest).into()),
            Err(error) => return Err(LayoutError::io("opening", &path)(error).into()),
        };
        let (mut hasher, mut buffer) = (Hasher::new(digest.algorithm()), vec![0; STRIDE]);
        loop {
            let length = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LayoutError::io("reading", &path)(error).into()),
            };
            hasher.update(&buffer[..length]);
            each(&buffer[..length])?;
        }
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(());
        }
        Err(LayoutError::Damaged { expected: *digest, actual: Box::new(actual) }.into())
    }

    /// Begins to take some content.
    ///
    /// # Errors
    /// The disk fails.
    pub fn begin(&self, digest: &Digest) -> Result<Incoming, LayoutError> {
        let partial = self.partial();
        let file = NamedTempFile::new_in(&partial).map_err(LayoutError::io("creating a file in", &partial))?;
        let hasher = Hasher::new(digest.algorithm());
        Ok(Incoming { file, hasher, expected: *digest, target: self.blob(digest), size: 0 })
    }

    /// Makes `index` what the layout has, durably and with all that came before.
    ///
    /// # Errors
    /// The disk fails; the layout has what it had before then.
    pub fn publish(&self, index: &Index) -> Result<(), LayoutError> {
        for path in Algorithm::ALL.map(|algorithm| self.content(algorithm)) {
            sync(&path)?;
        }
        sync(&self.root.join(BLOBS))?;
        // The marker first: with it and without an index nobody takes this for a layout.
        self.replace(&self.root.join(MARKER), &marker(), 0o644)?;
        self.replace(&self.root.join(INDEX), &index.to_json(), 0o644)?;
        sync(&self.root)
    }

    /// Keeps a file that is no image and that no other tool looks at. `mode` says who may read it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn keep(&self, name: &str, content: &[u8], mode: u32) -> Result<PathBuf, LayoutError> {
        let path = self.root.join(OURS).join(name);
        self.replace(&path, content, mode)?;
        sync(&self.root.join(OURS))?;
        Ok(path)
    }

    /// What [`Directory::keep`] kept under this name, if it did.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, LayoutError> {
        let path = self.root.join(OURS).join(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LayoutError::io("reading", &path)(error)),
        }
    }

    /// Removes all content but this.
    ///
    /// # Errors
    /// The disk fails.
    pub fn prune(&self, keep: &HashSet<Digest>) -> Result<Removed, LayoutError> {
        let mut removed = Removed::default();
        for algorithm in Algorithm::ALL {
            let directory = self.content(algorithm);
            let failed = || LayoutError::io("listing", &directory);
            for entry in fs::read_dir(&directory).map_err(failed())? {
                let entry = entry.map_err(failed())?;
                let name = entry.file_name();
                let digest = name.to_str().and_then(|hex| format!("{}:{hex}", algorithm.as_str()).parse().ok());
                if digest.is_none_or(|digest| keep.contains(&digest)) {
                    continue;
                }
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                fs::remove_file(entry.path()).map_err(LayoutError::io("removing", &entry.path()))?;
                removed.blobs += 1;
                removed.bytes += size;
            }
        }
        Ok(removed)
    }

    fn replace(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), LayoutError> {
        let partial = self.partial();
        let write = || {
            let mut file = NamedTempFile::new_in(&partial)?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(path).map(|_file| ()).map_err(|failed| failed.error)
        };
        write().map_err(LayoutError::io("writing", path))
    }

    fn content(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join(BLOBS).join(algorithm.as_str())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.content(digest.algorithm()).join(digest.hex())
    }

    fn partial(&self) -> PathBuf {
        self.root.join(OURS).join(PARTIAL)
    }
}

impl Incoming {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk fails.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), LayoutError> {
        self.file.write_all(piece).map_err(LayoutError::io("writing", self.file.path()))?;
        self.hasher.update(piece);
        self.size += piece.len() as u64;
        Ok(())
    }

    /// Gives it its name if it is right; says how long it is. The name is durable when the next index is.
    ///
    /// # Errors
    /// It is not, and nothing is left of it; or the disk fails.
    pub fn finish(self) -> Result<u64, LayoutError> {
        let actual = self.hasher.finish();
        if actual != self.expected {
            return Err(LayoutError::Damaged { expected: self.expected, actual: Box::new(actual) });
        }
        let publish = || {
            // Content is for everyone who may read the directory; a temporary file is not.
            self.file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            self.file.as_file().sync_data()?;
            self.file.persist(&self.target).map(|_file| ()).map_err(|failed| failed.error)
        };
        publish().map_err(LayoutError::io("writing", &self.target.clone()))?;
        Ok(self.size)
    }
}

/// A file system that cannot lock does not say who else is there: then whoever runs two backups at once has to know.
fn lock(root: &Path, how: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File, LayoutError> {
    let directory = File::open(root).map_err(LayoutError::io("opening", root))?;
    match how(&directory) {
        Err(TryLockError::WouldBlock) => Err(LayoutError::InUse(root.to_owned())),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(directory),
    }
}

/// A first backup that was killed leaves content and no index.
fn is_foreign(root: &Path) -> Result<bool, LayoutError> {
    if root.join(INDEX).is_file() && root.join(MARKER).is_file() {
        return Ok(false);
    }
    let entries = fs::read_dir(root).map_err(LayoutError::io("listing", root))?;
    let begun = root.join(OURS).is_dir();
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        name != "lost+found" && !(begun && [OURS, BLOBS, MARKER].iter().any(|ours| name == *ours))
    }))
}

fn sync(directory: &Path) -> Result<(), LayoutError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(LayoutError::io("syncing directory", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(layout: &Directory, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let mut incoming = layout.begin(&digest).unwrap();
        incoming.append(content).unwrap();
        assert_eq!(incoming.finish().unwrap(), content.len() as u64);
        digest
    }

    #[test]
    fn content_is_there_when_it_is_right_and_pruned_when_it_is_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let layout = Directory::claim(&home.path().join("backup")).unwrap();
        assert_eq!(layout.index().unwrap(), None);
        let mut wrong = layout.begin(&Digest::sha256(b"right")).unwrap();
        wrong.append(b"wrong").unwrap();
        assert!(matches!(wrong.finish(), Err(LayoutError::Damaged { .. })));
        assert_eq!(layout.size(&Digest::sha256(b"right")).unwrap(), None);
        let (kept, other) = (put(&layout, b"kept"), put(&layout, b"other"));
        assert_eq!(layout.read(&kept, 4).unwrap(), b"kept");
        assert!(matches!(layout.read(&kept, 3), Err(LayoutError::TooLarge { .. })));
        layout.publish(&Index::default()).unwrap();
        assert_eq!(layout.prune(&HashSet::from([kept])).unwrap(), Removed { blobs: 1, bytes: 5 });
        assert!(matches!(layout.read(&other, 9), Err(LayoutError::Missing(_))));
        fs::write(layout.blob(&kept), "kepT").unwrap();
        assert!(matches!(layout.read(&kept, 9), Err(LayoutError::Damaged { .. })));
    }

    #[test]
    fn what_is_not_ours_is_left_alone_and_what_was_begun_is_gone_on_with() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(Directory::claim(home.path()), Err(LayoutError::NotALayout(_))));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        let root = home.path().join("backup");
        let first = Directory::claim(&root).unwrap();
        let digest = put(&first, b"came before it was killed");
        fs::write(first.partial().join(".tmpAbCdEf"), "half").unwrap();
        assert!(matches!(Directory::claim(&root), Err(LayoutError::InUse(_))));
        assert!(matches!(Directory::open(&root), Err(LayoutError::Absent(_))));
        drop(first);
        let second = Directory::claim(&root).unwrap();
        assert!(second.size(&digest).unwrap().is_some());
        assert_eq!(fs::read_dir(second.partial()).unwrap().count(), 0);
        second.publish(&Index::default()).unwrap();
        drop(second);
        let (_one, _another) = (Directory::open(&root).unwrap(), Directory::open(&root).unwrap());
        assert!(matches!(Directory::claim(&root), Err(LayoutError::InUse(_))));
    }
}
