//! What is kept: content as files under their digest, tags and links as small files, and an index over them.
//!
//! Files are the truth and the index can always be made again from them; whether something is here is decided by
//! opening its file. Nothing is visible under a digest before it is complete, verified and durable. Everything in here
//! blocks on the disk alone: this floor knows no HTTP and no upstream.

mod blob;
mod claim;
mod durable;
mod error;
mod held;
pub mod index;
mod ingest;
mod layout;
pub mod link;
mod metrics;
mod record;
mod truth;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

pub use blob::{BlobFile, Extent};
pub use claim::OpenError;
pub use error::StorageError;
pub use held::Opening;
pub use ingest::{Growing, Ingest, Landing};
pub use link::Link;
pub use record::{ReferrersRecord, TagRecord};

use self::claim::Claim;
use self::held::Held;
use self::index::{Change, Index};
use self::layout::Layout;
use self::metrics::Metrics;
use self::truth::Files;
use crate::clock::Clock;
use crate::oci::{Digest, Repository, Tag};

/// Where things are kept, and how much memory the index may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// Memory for the index's own cache, in bytes.
    pub index_cache: u64,
}

/// How long the index may take to write down what it knows.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The data directory of this process. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    index: Index,
    clock: Clock,
    metrics: Metrics,
    held: Held,
    // Whoever changes a file and tells the index of it reads this; closing writes it, so that nothing comes in between.
    closed: RwLock<bool>,
    // Last, so that the directory is given up after everything else.
    _claim: Claim,
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
        let metrics = Metrics::new(registry, index.clone(), &layout.quarantine());
        let closed = RwLock::new(false);
        Ok(Store { inner: Arc::new(Inner { layout, index, clock, metrics, held: Held::new(), closed, _claim: claim }) })
    }

    /// The index, for listings and figures.
    pub fn index(&self) -> &Index {
        &self.inner.index
    }

    /// Opens a blob, if it is here. One whose length is not what it was when it was stored is set aside instead.
    ///
    /// # Errors
    /// The disk fails.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobFile>, StorageError> {
        let path = self.inner.layout.blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("opening", &path)(error)),
        };
        let size = file.metadata().map_err(StorageError::io("looking at", &path))?.len();
        let known = self.inner.index.blob(digest).map(|record| record.size);
        if known.is_some_and(|known| known != size) || (size == 0 && !digest.matches(b"")) {
            self.quarantine(digest, "its length is wrong")?;
            return Ok(None);
        }
        Ok(Some(BlobFile::new(Arc::new(file), size)))
    }

    /// A blob that `repository` may be asked for, if both were found before and it is still here. Never waits for the disk.
    pub fn held(&self, repository: &Repository, digest: &Digest) -> Option<BlobFile> {
        self.inner.held.get(repository, digest)
    }

    /// To be called before what is to be held is opened.
    pub fn opening(&self) -> Opening {
        self.inner.held.opening()
    }

    /// Holds a blob open that was found since `opening`, as was its link to `repository`.
    pub fn hold(&self, opening: Opening, repository: Repository, digest: Digest, blob: BlobFile) {
        self.inner.held.hold(opening, repository, digest, blob);
    }

    /// Notes that a blob was read. Never blocks for long, and may be forgotten.
    pub fn used(&self, digest: &Digest) {
        self.inner.index.record(Change::Used { digest: *digest, at: self.inner.clock.unix_seconds() });
    }

    /// Begins to take the content of `digest`, or goes on where an earlier attempt ended. One at a time for a digest: the
    /// caller sees to that.
    ///
    /// # Errors
    /// The disk fails.
    pub fn ingest(&self, digest: &Digest) -> Result<Ingest, StorageError> {
        Ingest::resumable(&self.inner.layout.part(digest), self.inner.layout.blob(digest), *digest)
    }

    /// Finishes an ingest: afterwards the blob is here for good.
    ///
    /// # Errors
    /// The content is wrong, or the disk fails; nothing is kept then.
    pub fn commit(&self, digest: &Digest, ingest: Ingest) -> Result<BlobFile, StorageError> {
        let _open = self.while_open()?;
        let blob = ingest.commit()?;
        let at = self.inner.clock.unix_seconds();
        self.inner.index.record(Change::BlobStored { digest: *digest, size: blob.size(), at });
        Ok(blob)
    }

    /// Takes small content in one go.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn put(&self, digest: &Digest, content: &[u8]) -> Result<(), StorageError> {
        let mut ingest = Ingest::unnamed(&self.inner.layout.ingest(), self.inner.layout.blob(digest), *digest)?;
        ingest.append(content)?;
        self.commit(digest, ingest).map(|_blob| ())
    }

    /// Takes content away from where it could be served.
    ///
    /// # Errors
    /// The disk fails.
    pub fn quarantine(&self, digest: &Digest, reason: &'static str) -> Result<(), StorageError> {
        let path = self.inner.layout.blob(digest);
        let name = format!("{}.{}", layout::file_name(digest), self.inner.clock.unix_seconds());
        match fs::rename(&path, self.inner.layout.quarantine().join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StorageError::io("setting aside", &path)(error)),
        }
        self.inner.held.let_go();
        tracing::error!(%digest, reason, "a blob was set aside in quarantine/ and will be fetched anew");
        self.inner.metrics.quarantined();
        self.inner.index.record(Change::BlobRemoved { digest: *digest });
        Ok(())
    }

    /// What `repository` may be asked for under `digest`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn link(&self, repository: &Repository, digest: &Digest) -> Result<Option<Link>, StorageError> {
        let bytes = durable::read(&self.inner.layout.link(repository, digest))?;
        Ok(bytes.and_then(|bytes| Link::from_json(&bytes)))
    }

    /// Notes that `repository` may be asked for `digest`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn add_link(&self, repository: &Repository, digest: &Digest, link: Link) -> Result<(), StorageError> {
        if self.link(repository, digest)? == Some(link) {
            return Ok(());
        }
        let _open = self.while_open()?;
        self.replace(self.inner.layout.link(repository, digest), &link.to_json())?;
        self.inner.index.record(Change::Linked { repository: repository.clone(), digest: *digest, link });
        Ok(())
    }

    /// What a tag meant when it was last learnt.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagRecord>, StorageError> {
        let bytes = durable::read(&self.inner.layout.tag(repository, tag))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// When upstream was last asked about a tag, and answered; seconds since 1970.
    pub fn tag_checked(&self, repository: &Repository, tag: &Tag) -> Option<u64> {
        self.inner.index.tag_checked(repository, tag)
    }

    /// Notes what a tag means now. A meaning that did not change is noted in the index alone: should that be lost, the
    /// tag is merely asked about again.
    ///
    /// # Errors
    /// The disk fails; the tag means what it meant before then.
    pub fn set_tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), StorageError> {
        let at = self.inner.clock.unix_seconds();
        let (repository, tag) = (repository.clone(), tag.clone());
        if self.tag(&repository, &tag)?.is_some_and(|record| record.digest == *digest) {
            self.inner.index.record(Change::TagChecked { repository, tag, at });
            return Ok(());
        }
        let _open = self.while_open()?;
        let record = serde_json::to_vec(&TagRecord { digest: *digest, at }).unwrap_or_default();
        self.replace(self.inner.layout.tag(&repository, &tag), &record)?;
        self.inner.index.record(Change::TagSet { repository, tag, digest: *digest, at });
        Ok(())
    }

    /// The tags that are known of a repository, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, StorageError> {
        let directory = self.inner.layout.tags(repository);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(StorageError::io("listing", &directory)(error)),
        };
        let mut tags: Vec<Tag> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// The last list of referrers that upstream sent.
    ///
    /// # Errors
    /// The disk fails.
    pub fn referrers(&self, repository: &Repository, digest: &Digest) -> Result<Option<ReferrersRecord>, StorageError> {
        let bytes = durable::read(&self.inner.layout.referrers(repository, digest))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Keeps a list of referrers.
    ///
    /// # Errors
    /// The disk fails; the list is what it was before then.
    pub fn set_referrers(&self, repository: &Repository, digest: &Digest, index: &str) -> Result<(), StorageError> {
        let record = ReferrersRecord { index: index.to_owned(), at: self.inner.clock.unix_seconds() };
        let record = serde_json::to_vec(&record).unwrap_or_default();
        self.replace(self.inner.layout.referrers(repository, digest), &record)
    }

    /// Writes down what is only in memory, so that the next start finds everything in order.
    pub fn close(&self) {
        *self.inner.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        if !self.inner.index.clone().close(CLOSE_LIMIT) {
            tracing::warn!("the index did not close in time: the next start compares it with the files");
        }
    }

    /// Holds off the end while files change that the index is to hear of.
    fn while_open(&self) -> Result<RwLockReadGuard<'_, bool>, StorageError> {
        let closed = self.inner.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed { Err(StorageError::Closed) } else { Ok(closed) }
    }

    fn replace(&self, path: PathBuf, content: &[u8]) -> Result<(), StorageError> {
        durable::replace(&path, &self.inner.layout.ingest(), content)
    }
}
