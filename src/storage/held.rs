//! Blobs that are asked for often, held open with the right to read them: who asks for one again waits for no disk.
//!
//! Never says that something is here that is not: each time the open file itself is asked (which touches no disk) whether it
//! still has a name and its length, so that one that was removed, replaced or cut short is let go. One that was renamed, as
//! to quarantine, cannot be told like that: then everything is let go. Whoever reads one goes on reading.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::blob::BlobFile;
use crate::memory::{self, Memory};
use crate::oci::{Digest, Repository};

/// Files that are held open, and for a moment some more; fewer where the process may open few, which clients need more.
const MAX_HELD: u64 = 1024;
/// Of the files that the process may open.
const SHARE: u64 = 16;

/// The blobs that are held.
pub struct Held {
    blobs: Memory<(Repository, Digest), BlobFile>,
    // Counts up whenever everything is let go: what was opened before must not be held after.
    generation: Mutex<u64>,
}

/// When a blob was about to be opened. The same as a later one if nothing was taken away in between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opening(u64);

impl Held {
    /// Holds nothing yet.
    pub fn new() -> Held {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Held { blobs: memory::of_entries(MAX_HELD.min(limit / SHARE)), generation: Mutex::new(0) }
    }

    /// A blob that `repository` may be asked for, if it is held and still here. Touches no disk.
    pub fn get(&self, repository: &Repository, digest: &Digest) -> Option<BlobFile> {
        let key = (repository.clone(), *digest);
        let blob = self.blobs.get(&key)?;
        if !blob.is_as_it_was() {
            self.blobs.invalidate(&key);
            self.drop_now();
            return None;
        }
        Some(blob)
    }

    /// To be called before a blob is opened and its link is read.
    pub fn opening(&self) -> Opening {
        Opening(*self.generation())
    }

    /// Holds what was opened and found linked since `opening`.
    pub fn hold(&self, opening: Opening, repository: Repository, digest: Digest, blob: BlobFile) {
        let generation = self.generation();
        if *generation == opening.0 {
            self.blobs.insert((repository, digest), blob);
        }
    }

    /// Holds nothing any more, and nothing that is being opened now. Whatever takes blobs or links away calls this, after it
    /// has: once for many, for all that it costs is to open them again.
    pub fn let_go(&self) {
        let mut generation = self.generation();
        *generation += 1;
        self.blobs.invalidate_all();
        self.drop_now();
    }

    /// A descriptor keeps a removed file's room on the disk: what is let go is not left to the cache's leisure.
    fn drop_now(&self) {
        self.blobs.run_pending_tasks();
    }

    fn generation(&self) -> MutexGuard<'_, u64> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    fn repository() -> Repository {
        Repository { registry: "docker.io".parse().unwrap(), name: "a/b".parse().unwrap() }
    }

    fn open(path: &Path) -> BlobFile {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        BlobFile::new(Arc::new(file), size, None)
    }

    #[test]
    fn what_is_held_is_let_go_when_its_file_is_not_what_it_was() {
        let (home, held, digest) = (tempfile::tempdir().unwrap(), Held::new(), Digest::sha256(b"content"));
        let path = home.path().join("blob");
        let changes: [fn(&Path); 3] = [
            |path| fs::remove_file(path).unwrap(),
            |path| File::options().write(true).open(path).unwrap().set_len(3).unwrap(),
            |path| {
                fs::write(path.with_extension("new"), b"content").unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
        ];
        for change in changes {
            fs::write(&path, b"content").unwrap();
            let blob = open(&path);
            held.hold(held.opening(), repository(), digest, blob.clone());
            assert!(held.get(&repository(), &digest).is_some());
            let other = Repository { name: "a/c".parse().unwrap(), ..repository() };
            assert!(held.get(&other, &digest).is_none(), "a right is one repository's");
            change(&path);
            assert!(held.get(&repository(), &digest).is_none());
        }
    }

    #[test]
    fn what_was_opened_before_everything_was_let_go_is_not_held_after() {
        let (home, held, digest) = (tempfile::tempdir().unwrap(), Held::new(), Digest::sha256(b"content"));
        let path = home.path().join("blob");
        fs::write(&path, b"content").unwrap();
        held.hold(held.opening(), repository(), digest, open(&path));
        let opening = held.opening();
        held.let_go();
        assert!(held.get(&repository(), &digest).is_none());
        held.hold(opening, repository(), digest, open(&path));
        assert!(held.get(&repository(), &digest).is_none());
        held.hold(held.opening(), repository(), digest, open(&path));
        assert!(held.get(&repository(), &digest).is_some());
    }
}
