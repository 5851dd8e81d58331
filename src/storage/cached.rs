//! The small files of cached repositories: which digests each may be asked for, and what its upstream last said of its tags,
//! its referrers, and who may pull. What is damaged is absent: upstream can be asked again.

use super::durable;
use super::error::StorageError;
use super::index::Change;
use super::layout;
use super::link::Link;
use super::record::{AbsentRecord, PublicRecord, ReferrersRecord, TagRecord};
use super::repositories;
use super::space::Room;
use super::store::Store;
use super::suspects::Suspect;
use super::vault::Open;
use crate::oci::{Digest, MediaType, Repository, Tag};

impl Store {
    /// Every cached repository, as the files say: they are walked.
    ///
    /// # Errors
    /// The disk fails.
    pub fn repositories(&self) -> Result<Vec<Repository>, StorageError> {
        Ok(repositories::cached(&self.vault.layout)?.into_iter().map(|(repository, _)| repository).collect())
    }

    /// The digests that a repository may be asked for.
    ///
    /// # Errors
    /// The disk fails.
    pub fn linked(&self, repository: &Repository) -> Result<Vec<Digest>, StorageError> {
        let entries = durable::entries(&self.vault.layout.repository(repository).links())?;
        Ok(entries.iter().filter_map(|(file, _)| layout::parse_file_name(file)).collect())
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

    /// Notes what a tag meant when it was learnt at `at`, in seconds since 1970, unless something is known of it. Says whether
    /// it means that now.
    ///
    /// # Errors
    /// The disk fails.
    pub fn recall_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        at: u64,
    ) -> Result<bool, StorageError> {
        match self.tag(repository, tag)? {
            Some(known) => Ok(known.digest == *digest),
            None => self.write_tag(repository, tag, &TagRecord::new(*digest, at)).map(|()| true),
        }
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
        let entries = durable::entries(&self.vault.layout.repository(repository).tags())?;
        let mut tags: Vec<Tag> = entries.into_iter().filter_map(|(tag, _)| tag.parse().ok()).collect();
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
}
