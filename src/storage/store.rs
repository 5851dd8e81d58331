//! The data directory of this process as one value, and the content of its cached half. Decides nothing: every method hands on
//! to the file that does.

use std::path::PathBuf;
use std::sync::Arc;

use super::blob::BlobFile;
use super::census;
use super::claim::{self, OpenError};
use super::error::StorageError;
use super::eviction::{self, Condemned, Removed};
use super::examination::{self, Verdict};
use super::held::Opening;
use super::hosted::Hosted;
use super::index::{self, Index};
use super::ingest::Ingest;
use super::layout::Layout;
use super::metrics::Metrics;
use super::proof::{Proofs, Verify};
use super::scrub::Scrub;
use super::space::{self, Limits, Room, Space, Usage};
use super::truth::Files;
use super::upload::Uploads;
use super::vault::Vault;
use super::{activity, pins};
use crate::clock::Clock;
use crate::oci::{Digest, Repository};

/// Where things are kept, and how much memory the index may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// Memory for the index's own cache, in bytes.
    pub index_cache: u64,
    /// How much of the disk the cached half may use.
    pub limits: Limits,
    /// How often the bytes that are sent are checked.
    pub verify: Verify,
}

/// The data directory of this process, and its cached half. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) vault: Arc<Vault>,
}

impl Store {
    /// Opens the data directory, or makes one.
    ///
    /// # Errors
    /// It is in use, of an unknown layout, someone else's, or the disk fails. A damaged index is no error: it is set
    /// aside, and made again in the background.
    pub fn open(settings: Settings, clock: Clock, registry: &prometheus::Registry) -> Result<Store, OpenError> {
        let layout = Layout::new(settings.data_dir);
        let claim = claim::claim(&layout, clock.wall())?;
        let index = Index::open(
            index::Settings { cache_capacity: settings.index_cache, ..index::Settings::new(layout.index()) },
            Arc::new(Files::new(layout.clone())),
            clock.clone(),
            index::Metrics::new(registry),
        );
        let (space, counting) = Space::new(settings.limits, layout.root().to_owned(), clock.clone());
        census::count_parts(&layout, &space)?;
        census::begin(layout.clone(), counting);
        let metrics = Metrics::new(registry, index.clone(), space.clone(), &layout.quarantine());
        let proofs = Proofs::new(clock.clone(), settings.verify);
        Ok(Store { vault: Arc::new(Vault::new(layout, index, space, clock, metrics, proofs, claim)) })
    }

    /// The index, for listings and figures.
    pub fn index(&self) -> &Index {
        &self.vault.index
    }

    /// The hosted half.
    pub fn hosted(&self) -> Hosted {
        Hosted::new(self.vault.clone())
    }

    /// What clients are pushing to it.
    pub fn uploads(&self) -> Uploads {
        Uploads::new(self.vault.clone())
    }

    /// Opens a blob, if it is here. One whose length is not what it was when it was stored is set aside instead.
    ///
    /// # Errors
    /// The disk fails.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobFile>, StorageError> {
        self.vault.blob(digest)
    }

    /// A blob that `repository` may be asked for, if both were found before and it is still here. Never waits for the disk.
    pub fn held(&self, repository: &Repository, digest: &Digest) -> Option<BlobFile> {
        self.vault.held.get(repository, digest)
    }

    /// To be called before what is to be held is opened. While it is the same, nothing has been taken away.
    pub fn opening(&self) -> Opening {
        self.vault.held.opening()
    }

    /// Holds a blob open that was found since `opening`, as was its link to `repository`.
    pub fn hold(&self, opening: Opening, repository: Repository, digest: Digest, blob: BlobFile) {
        self.vault.held.hold(opening, repository, digest, blob);
    }

    /// Notes that a blob was read. Never blocks for long, and may be forgotten.
    pub fn used(&self, digest: &Digest) {
        self.vault.used(digest);
    }

    /// Begins to take the content of `digest`, or goes on where an earlier attempt ended. One at a time for a digest: the
    /// caller sees to that.
    ///
    /// # Errors
    /// The disk fails.
    pub fn ingest(&self, digest: &Digest) -> Result<(Ingest, Room), StorageError> {
        // The room of what was left is taken again at once, so that nobody else takes it.
        let left = space::length_of(&self.vault.layout.part(digest));
        self.vault.space.taken_up(digest);
        let room = self.vault.space.reserve(left).inspect_err(|_| {
            if left > 0 {
                self.vault.space.left(digest, left);
            }
        })?;
        let ingest = Ingest::resumable(&self.vault.layout.part(digest), self.vault.layout.blob(digest), *digest)?;
        Ok((ingest, room))
    }

    /// Begins to take content of `size` bytes by another road than from its upstream, with room for all of it. What a download
    /// has left of it, or is writing, is no matter.
    ///
    /// # Errors
    /// There is no room, or the disk fails.
    pub fn ingest_beside(&self, digest: &Digest, size: u64) -> Result<(Ingest, Room), StorageError> {
        let room = self.vault.space.reserve(size)?;
        let ingest = Ingest::unnamed(&self.vault.layout.ingest(), self.vault.layout.blob(digest), *digest)?;
        Ok((ingest, room))
    }

    /// Ends an ingest that will be gone on with.
    pub fn set_aside(&self, digest: &Digest, ingest: Ingest, room: Room) {
        let left = ingest.set_aside();
        // Counted twice for a moment rather than not at all: what was released would take the room.
        if left > 0 {
            self.vault.space.left(digest, left);
        }
        drop(room);
    }

    /// Finishes an ingest: afterwards the blob is here for good.
    ///
    /// # Errors
    /// The content is wrong, or the disk fails; nothing is kept then.
    pub fn commit(&self, digest: &Digest, ingest: Ingest, room: Room) -> Result<BlobFile, StorageError> {
        let blob = self.vault.commit(digest, ingest)?;
        // Counted twice for a moment rather than not at all.
        self.vault.space.kept(digest, blob.size());
        drop(room);
        // Pushed meanwhile: it is ours.
        if !self.vault.index.hosts_of(digest, 1).is_empty() {
            self.vault.space.gone(digest);
        }
        Ok(blob)
    }

    /// Takes room for `length` bytes of content.
    ///
    /// # Errors
    /// There is none, or it is not known yet what is used.
    pub fn reserve(&self, length: u64) -> Result<Room, StorageError> {
        self.vault.space.reserve(length)
    }

    /// Bytes that have to go before a file of `length` bytes fits, for which so many are `held` already; `None`: it never
    /// will.
    pub fn lacking(&self, length: u64, held: u64) -> Option<u64> {
        self.vault.space.lacking(length, held)
    }

    /// Bytes that have to go before pushes that were refused since the last call fit.
    pub fn pushes_lack(&self) -> u64 {
        self.vault.space.others_lack()
    }

    /// What the cached half uses of the disk.
    pub fn usage(&self) -> Usage {
        self.vault.space.usage()
    }

    /// Waits until it is known: what was here at start is counted while the server serves.
    pub async fn counted(&self) {
        self.vault.space.counted().await;
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.vault.space.limits()
    }

    /// Takes tags and links of a cached repository away. Their content stays.
    ///
    /// # Errors
    /// The disk fails, or the server is stopping.
    pub fn forget(&self, repository: &Repository, condemned: &Condemned) -> Result<(), StorageError> {
        eviction::forget(&self.vault, repository, condemned)
    }

    /// Removes those of `blobs` that no repository holds, hosted or cached, and that `is_needed` does not claim. Removes
    /// nothing while the index cannot be relied on.
    ///
    /// # Errors
    /// The disk fails, or the server is stopping.
    pub fn remove(&self, blobs: &[Digest], is_needed: impl Fn(&Digest) -> bool) -> Result<Removed, StorageError> {
        eviction::remove(&self.vault, blobs, is_needed)
    }

    /// Removes what was left half-way in. The caller sees to it that nobody is about to go on with it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove_part(&self, digest: &Digest) -> Result<(), StorageError> {
        eviction::remove_part(&self.vault, digest)
    }

    /// What was left half-way in and nobody goes on with.
    pub fn parts(&self) -> Vec<Digest> {
        self.vault.space.parts()
    }

    /// Takes content away from where it could be served.
    ///
    /// # Errors
    /// The disk fails.
    pub fn quarantine(&self, digest: &Digest, reason: &'static str) -> Result<(), StorageError> {
        self.vault.quarantine(digest, reason)
    }

    /// Looks at all of a blob, and sets it aside if it is wrong.
    ///
    /// # Errors
    /// The disk fails.
    pub fn examine(&self, digest: &Digest) -> Result<Verdict, StorageError> {
        examination::examine(&self.vault, digest)
    }

    /// All that is here, to be looked at bit by bit.
    pub fn scrub(&self) -> Scrub {
        Scrub::new(self.vault.clone())
    }

    /// The patterns that the operator pinned while the server ran.
    ///
    /// # Errors
    /// The disk fails, or the file is damaged.
    pub fn pins(&self) -> Result<Vec<String>, StorageError> {
        pins::read(&self.vault)
    }

    /// Replaces them; durable when this returns.
    ///
    /// # Errors
    /// The disk fails, or the server is stopping; they are what they were before then.
    pub fn set_pins(&self, patterns: &[String]) -> Result<(), StorageError> {
        pins::write(&self.vault, patterns)
    }

    /// What the operator's page remembers. What is damaged is absent.
    ///
    /// # Errors
    /// The disk fails.
    pub fn activity(&self) -> Result<Option<Vec<u8>>, StorageError> {
        activity::read(&self.vault)
    }

    /// Replaces it, by one line of text; durable when this returns.
    ///
    /// # Errors
    /// The disk fails, or the server is stopping.
    pub fn set_activity(&self, line: &[u8]) -> Result<(), StorageError> {
        activity::write(&self.vault, line)
    }

    /// Writes down what is only in memory, so that the next start finds everything in order.
    pub fn close(&self) {
        self.vault.close();
    }
}
