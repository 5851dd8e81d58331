//! What is kept: content as files under their digest, tags and links as small files, and an index over them.
//!
//! Files are the truth and the index can always be made again from them; whether something is here is decided by
//! opening its file. Nothing is visible under a digest before it is complete, verified and durable. Everything in here
//! blocks on the disk alone: this floor knows no HTTP and no upstream.

mod activity;
mod blob;
mod census;
mod claim;
mod durable;
mod error;
mod eviction;
mod examination;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod garbage;
mod held;
mod home;
mod hosted;
mod hosted_files;
pub mod index;
mod ingest;
mod layout;
pub mod link;
mod metrics;
mod pins;
mod print;
mod proof;
mod record;
mod scrub;
mod space;
mod sums;
mod suspects;
mod truth;
mod turns;
mod upload;
mod upload_id;
mod vault;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use blob::{BlobFile, Extent};
pub use claim::{OpenError, is_data_directory};
pub use error::StorageError;
pub use eviction::{Condemned, Removed};
pub use examination::{Examination, Verdict};
pub use garbage::Collected;
pub use held::Opening;
pub use hosted::{Edit, Holdings, Hosted};
pub use ingest::{Growing, Ingest, Landing};
pub use link::Link;
pub use print::Print;
pub use proof::{Verify, is_lost};
pub use record::{AbsentRecord, PublicRecord, ReferrersRecord, TagRecord};
pub use scrub::{Scrub, ScrubRecord};
pub use space::{Limits, Room, Usage, footprint};
pub use suspects::{Garbage, Suspect};
pub use upload::{Upload, UploadRecord, Uploads};
pub use upload_id::UploadId;

use self::index::{Change, Index};
use self::layout::Layout;
use self::metrics::Metrics;
use self::proof::Proofs;
use self::space::Space;
use self::truth::Files;
use self::vault::{Open, Vault};
use crate::clock::Clock;
use crate::oci::{Digest, MediaType, Repository, Tag};

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
    vault: Arc<Vault>,
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

    /// Ends an ingest that will be gone on with.
    pub fn set_aside(&self, digest: &Digest, ingest: Ingest, room: Room) {
        let left = ingest.set_aside();
        drop(room);
        if left > 0 {
            self.vault.space.left(digest, left);
        }
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

    /// Takes a manifest unless it is here, and lets `repository` have it: nobody takes it away in between.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: &[u8],
        media_type: MediaType,
        room: Room,
    ) -> Result<(), StorageError> {
        let (open, size) = (self.vault.while_open()?, content.len() as u64);
        if self.vault.blob(digest)?.is_none() {
            self.vault.put(&open, digest, content)?;
            self.vault.space.kept(digest, size);
        }
        drop(room);
        self.link_while(&open, repository, digest, Link::Manifest { media_type, size })
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

    /// What `repository` may be asked for under `digest`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn link(&self, repository: &Repository, digest: &Digest) -> Result<Option<Link>, StorageError> {
        let bytes = durable::read(&self.vault.layout.repository(repository).link(digest))?;
        Ok(bytes.and_then(|bytes| Link::from_json(&bytes)))
    }

    /// Notes that `repository` may be asked for `digest`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn add_link(&self, repository: &Repository, digest: &Digest, link: Link) -> Result<(), StorageError> {
        let open = self.vault.while_open()?;
        self.link_while(&open, repository, digest, link)
    }

    fn link_while(
        &self,
        _: &Open<'_>,
        repository: &Repository,
        digest: &Digest,
        link: Link,
    ) -> Result<(), StorageError> {
        if self.link(repository, digest)? == Some(link) {
            return Ok(());
        }
        self.vault.suspects.clear(&Suspect::Blob(*digest));
        self.vault.replace(self.vault.layout.repository(repository).link(digest), &link.to_json())?;
        self.vault.index.record(Change::Linked { repository: repository.clone().into(), digest: *digest, link });
        Ok(())
    }

    /// What a tag meant when it was last learnt.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagRecord>, StorageError> {
        let bytes = durable::read(&self.vault.layout.repository(repository).tag(tag))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// When upstream was last asked about a tag, and answered; seconds since 1970.
    pub fn tag_checked(&self, repository: &Repository, tag: &Tag) -> Option<u64> {
        self.vault.index.tag_checked(repository, tag)
    }

    /// Notes what a tag means now, and who said so. A meaning that did not change is noted in the index alone: should that
    /// be lost, the tag is merely asked about again.
    ///
    /// # Errors
    /// The disk fails; the tag means what it meant before then.
    pub fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        is_fallback: bool,
    ) -> Result<(), StorageError> {
        let at = self.vault.clock.unix_seconds();
        let record = TagRecord { is_fallback, ..TagRecord::new(*digest, at) };
        if self.tag(repository, tag)?.is_some_and(|known| TagRecord { at, ..known } == record) {
            let (home, tag) = (repository.clone().into(), tag.clone());
            self.vault.index.record(Change::TagChecked { repository: home, tag, at });
            return Ok(());
        }
        self.write_tag(repository, tag, &record)
    }

    /// Notes what the registry said of a tag that it does not have any more. A tag that is not kept is none to note it of.
    ///
    /// # Errors
    /// The disk fails.
    pub fn set_absent(&self, repository: &Repository, tag: &Tag, absent: AbsentRecord) -> Result<(), StorageError> {
        let Some(known) = self.tag(repository, tag)?.filter(|known| known.absent != Some(absent)) else {
            return Ok(());
        };
        let checked = self.tag_checked(repository, tag);
        self.write_tag(repository, tag, &TagRecord { absent: Some(absent), ..known })?;
        // Being told that it is not there confirms nothing: what the index knew of it stays.
        if let Some(at) = checked {
            let (home, tag) = (repository.clone().into(), tag.clone());
            self.vault.index.record(Change::TagChecked { repository: home, tag, at });
        }
        Ok(())
    }

    /// Forgets a tag for good. What it meant stays, for those who ask by digest.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StorageError> {
        let _open = self.vault.while_open()?;
        durable::remove(&self.vault.layout.repository(repository).tag(tag))?;
        self.vault.index.record(Change::TagRemoved { repository: repository.clone().into(), tag: tag.clone() });
        Ok(())
    }

    fn write_tag(&self, repository: &Repository, tag: &Tag, record: &TagRecord) -> Result<(), StorageError> {
        let _open = self.vault.while_open()?;
        let text = serde_json::to_vec(record).unwrap_or_default();
        self.vault.replace(self.vault.layout.repository(repository).tag(tag), &text)?;
        let (repository, tag, digest, at) = (repository.clone().into(), tag.clone(), record.digest, record.at);
        self.vault.index.record(Change::TagSet { repository, tag, digest, at });
        Ok(())
    }

    /// Whether anyone may pull from a repository, if that was ever learnt.
    ///
    /// # Errors
    /// The disk fails.
    pub fn public(&self, repository: &Repository) -> Result<Option<PublicRecord>, StorageError> {
        let bytes = durable::read(&self.vault.layout.repository(repository).public())?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Notes whether anyone may pull from a repository.
    ///
    /// # Errors
    /// The disk fails; what was noted before holds then.
    pub fn set_public(&self, repository: &Repository, is_public: bool) -> Result<(), StorageError> {
        let record = PublicRecord { is_public, at: self.vault.clock.unix_seconds() };
        let record = serde_json::to_vec(&record).unwrap_or_default();
        self.vault.replace(self.vault.layout.repository(repository).public(), &record)
    }

    /// The tags that are known of a repository, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, StorageError> {
        let directory = self.vault.layout.repository(repository).tags();
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
        let bytes = durable::read(&self.vault.layout.repository(repository).referrers(digest))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Keeps a list of referrers.
    ///
    /// # Errors
    /// The disk fails; the list is what it was before then.
    pub fn set_referrers(&self, repository: &Repository, digest: &Digest, index: &str) -> Result<(), StorageError> {
        let record = ReferrersRecord { index: index.to_owned(), at: self.vault.clock.unix_seconds() };
        let record = serde_json::to_vec(&record).unwrap_or_default();
        self.vault.replace(self.vault.layout.repository(repository).referrers(digest), &record)
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
