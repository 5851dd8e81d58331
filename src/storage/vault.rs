//! Content by its digest, whoever it belongs to: what the hosted and the cached half of the store share. One file for a
//! digest, however many repositories hold it.
//!
//! Never decides who may have something: links do, and those are each half's own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::blob::BlobFile;
use super::claim::Claim;
use super::durable;
use super::error::StorageError;
use super::held::Held;
use super::index::{Change, Index};
use super::ingest::Ingest;
use super::layout::{self, Layout};
use super::metrics::Metrics;
use super::proof::{Proof, Proofs};
use super::space::Space;
use super::sums::{self, Sums};
use super::suspects::{Suspect, Suspects};
use super::turns::Turns;
use crate::clock::Clock;
use crate::oci::Digest;

/// How long the index may take to write down what it knows.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// While it lasts, nothing ends and nothing is taken away.
pub type Open<'a> = RwLockReadGuard<'a, bool>;

/// The files, the index over them, and the order in which they change.
pub struct Vault {
    /// Where everything is.
    pub layout: Layout,
    /// What is known without opening files.
    pub index: Index,
    /// The time.
    pub clock: Clock,
    /// What nobody seems to need any more.
    pub suspects: Suspects,
    /// What the cached half uses of the disk.
    pub space: Space,
    /// What is held open for those who ask often.
    pub held: Held,
    /// Who may change a hosted repository now.
    pub turns: Turns,
    metrics: Metrics,
    proofs: Proofs,
    examining: Mutex<()>,
    // Whoever changes a file and tells the index of it reads this; closing and collecting garbage write it, so that nothing
    // comes in between.
    closed: RwLock<bool>,
    // Last, so that the directory is given up after everything else.
    _claim: Claim,
}

impl Vault {
    /// What `claim` gives the right to.
    pub fn new(
        layout: Layout,
        index: Index,
        space: Space,
        clock: Clock,
        metrics: Metrics,
        proofs: Proofs,
        claim: Claim,
    ) -> Vault {
        let (suspects, held, closed) = (Suspects::default(), Held::new(), RwLock::new(false));
        Vault {
            layout,
            index,
            clock,
            suspects,
            space,
            held,
            turns: Turns::default(),
            metrics,
            proofs,
            examining: Mutex::default(),
            closed,
            _claim: claim,
        }
    }

    /// Opens a blob, if it is here. One whose length is not what it was when it was stored is set aside instead.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobFile>, StorageError> {
        self.suspects.clear(&Suspect::Blob(*digest));
        let Some(blob) = self.open(digest)? else { return Ok(None) };
        let (size, known) = (blob.size(), self.index.blob(digest).map(|record| record.size));
        if known.is_some_and(|known| known != size) || (size == 0 && !digest.matches(b"")) {
            self.quarantine(digest, "its length is wrong")?;
            return Ok(None);
        }
        Ok(Some(blob))
    }

    /// Opens the file of a blob as it is, if it is here.
    pub fn open(&self, digest: &Digest) -> Result<Option<BlobFile>, StorageError> {
        let path = self.layout.blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("opening", &path)(error)),
        };
        let size = file.metadata().map_err(StorageError::io("looking at", &path))?.len();
        let proof = self.proofs.of(digest, &path, size);
        Ok(Some(BlobFile::new(Arc::new(file), size, proof)))
    }

    /// Finishes an ingest: afterwards the blob is here for good.
    pub fn commit(&self, digest: &Digest, ingest: Ingest) -> Result<BlobFile, StorageError> {
        let open = self.while_open()?;
        self.commit_while(&open, digest, ingest)
    }

    fn commit_while(&self, _: &Open<'_>, digest: &Digest, ingest: Ingest) -> Result<BlobFile, StorageError> {
        let (file, sums) = ingest.commit()?;
        let size = sums.size;
        Ok(BlobFile::new(file, size, self.stored(digest, sums)))
    }

    /// Takes small content in one go. Until `open` is dropped nobody takes it away, although nobody holds it yet.
    pub fn put(&self, open: &Open<'_>, digest: &Digest, content: &[u8]) -> Result<(), StorageError> {
        let mut ingest = Ingest::unnamed(&self.layout.ingest(), self.layout.blob(digest), *digest)?;
        ingest.append(content)?;
        self.commit_while(open, digest, ingest).map(|_blob| ())
    }

    /// Takes note that a blob's file is complete under its name, and right.
    pub fn stored(&self, digest: &Digest, sums: Sums) -> Option<Arc<Proof>> {
        self.suspects.clear(&Suspect::Blob(*digest));
        self.index.record(Change::BlobStored { digest: *digest, size: sums.size, at: self.clock.unix_seconds() });
        self.proofs.proven(digest, sums)
    }

    /// Takes note that a blob was just read and is right.
    pub fn proven(&self, digest: &Digest, sums: Sums) {
        self.proofs.forget(digest);
        let _proof = self.proofs.proven(digest, sums);
        // Those held open know of the sums before.
        self.held.let_go();
    }

    /// Has the sums of a blob be read from their file again.
    pub fn doubt(&self, digest: &Digest) {
        self.proofs.forget(digest);
        self.held.let_go();
    }

    /// Waits until nobody else looks at a whole blob.
    pub fn turn_to_examine(&self) -> MutexGuard<'_, ()> {
        self.examining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a blob and its sums for good. Says whether it was there.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StorageError> {
        let path = self.layout.blob(digest);
        let was = durable::remove(&path)?;
        self.removed(digest, &path);
        Ok(was)
    }

    /// Removes a blob that can be fetched again: a power cut may bring it back.
    pub fn drop_blob(&self, digest: &Digest) -> Result<(), StorageError> {
        let path = self.layout.blob(digest);
        durable::unlink(&path)?;
        self.removed(digest, &path);
        Ok(())
    }

    fn removed(&self, digest: &Digest, path: &Path) {
        // After the blob: one that is there has its sums. Those that stay, scrubbing takes away.
        let _ = fs::remove_file(sums::beside(path));
        self.proofs.forget(digest);
        self.space.gone(digest);
        self.index.record(Change::BlobRemoved { digest: *digest });
    }

    /// Takes note that a blob was read. Never blocks for long, and may be forgotten.
    pub fn used(&self, digest: &Digest) {
        self.index.record(Change::Used { digest: *digest, at: self.clock.unix_seconds() });
    }

    /// Takes content away from where it could be served.
    pub fn quarantine(&self, digest: &Digest, reason: &'static str) -> Result<(), StorageError> {
        let path = self.layout.blob(digest);
        let name = format!("{}.{}", layout::file_name(digest), self.clock.unix_seconds());
        match fs::rename(&path, self.layout.quarantine().join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StorageError::io("setting aside", &path)(error)),
        }
        self.removed(digest, &path);
        self.held.let_go();
        tracing::error!(
            %digest,
            reason,
            "a blob was set aside in quarantine/: a cached one is fetched anew, a hosted one must be pushed again"
        );
        self.space.gone(digest);
        self.metrics.quarantined();
        Ok(())
    }

    /// Replaces a small file atomically and durably.
    pub fn replace(&self, path: PathBuf, content: &[u8]) -> Result<(), StorageError> {
        durable::replace(&path, &self.layout.ingest(), content)
    }

    /// Holds off the end, and whoever takes away what nobody holds, while files change that the index is to hear of. Not to be taken
    /// twice by one thread.
    pub fn while_open(&self) -> Result<Open<'_>, StorageError> {
        let closed = self.undisturbed();
        if *closed { Err(StorageError::Closed) } else { Ok(closed) }
    }

    /// Holds off the collection of garbage while something is looked at. Not to be taken twice by one thread.
    pub fn undisturbed(&self) -> RwLockReadGuard<'_, bool> {
        self.closed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody changes anything, and holds everybody off.
    pub fn alone(&self) -> Result<RwLockWriteGuard<'_, bool>, StorageError> {
        let closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        if *closed { Err(StorageError::Closed) } else { Ok(closed) }
    }

    /// Writes down what is only in memory, so that the next start finds everything in order.
    pub fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        if !self.index.clone().close(CLOSE_LIMIT) {
            tracing::warn!("the index did not close in time: the next start compares it with the files");
        }
    }
}
