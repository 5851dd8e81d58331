//! The hosted half of the store: repositories that clients push to, and that nobody else has.
//!
//! What is written here is durable when the call returns. What was written and is not there any more, or is damaged, is
//! an error and never an absence. Cached content never shows here: a hosted repository has what its own links say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::blob::BlobFile;
use super::durable;
use super::error::StorageError;
use super::examination::{self, Verdict};
use super::garbage::{self, Collected};
use super::hosted_files::{add_blob_link, holders, index_is_up_to_date, link, open, read_tag, release, set_link};
use super::index::Change;
use super::ingest::Ingest;
use super::layout::{self, RepositoryDirectory};
use super::link::Link;
use super::record::TagRecord;
use super::repositories;
use super::suspects::{Garbage, Suspect};
use super::turns::Turn;
use super::vault::{Open, Vault};
use crate::oci::{Digest, MediaType, RepoName, Tag};

/// All hosted repositories. Clones share them. Every method blocks on the disk.
#[derive(Clone)]
pub struct Hosted {
    vault: Arc<Vault>,
}

impl Hosted {
    pub(super) fn new(vault: Arc<Vault>) -> Hosted {
        Hosted { vault }
    }

    /// A number that stays the same for as long as the repository's manifests and tags do; none while they are being
    /// changed. Touches no disk.
    pub fn unchanged(&self, name: &RepoName) -> Option<u64> {
        self.vault.turns.unchanged(name)
    }

    /// What a repository holds under a digest, opened. Asking counts as a use: what was found is no garbage for a while.
    ///
    /// # Errors
    /// The disk fails, or has lost it.
    pub fn open(&self, name: &RepoName, digest: &Digest) -> Result<Option<(Link, BlobFile)>, StorageError> {
        let _undisturbed = self.vault.undisturbed();
        open(&self.vault, name, digest)
    }

    /// Content, whichever repository holds it or did so lately. Asking counts as a use.
    ///
    /// # Errors
    /// The disk fails.
    pub fn content(&self, digest: &Digest) -> Result<Option<BlobFile>, StorageError> {
        let _undisturbed = self.vault.undisturbed();
        self.vault.suspects.clear(&Suspect::Blob(*digest));
        self.vault.open(digest)
    }

    /// What a repository holds under a digest, whether or not its content is still there.
    ///
    /// # Errors
    /// The disk fails.
    pub fn link(&self, name: &RepoName, digest: &Digest) -> Result<Option<Link>, StorageError> {
        link(&self.vault, name, digest)
    }

    /// What a tag means.
    ///
    /// # Errors
    /// The disk fails, or has lost it.
    pub fn tag(&self, name: &RepoName, tag: &Tag) -> Result<Option<Digest>, StorageError> {
        read_tag(&self.repository(name).tag(tag))
    }

    /// A repository's tags, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tags(&self, name: &RepoName) -> Result<Vec<Tag>, StorageError> {
        let entries = durable::entries(&self.repository(name).tags())?;
        let mut tags: Vec<Tag> = entries.into_iter().filter_map(|(tag, _)| tag.parse().ok()).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// Whether anything is in it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn exists(&self, name: &RepoName) -> Result<bool, StorageError> {
        let directory = self.repository(name);
        Ok(!durable::is_empty(&directory.links())? || !durable::is_empty(&directory.tags())?)
    }

    /// The descriptors of what refers to a manifest, in the order of their digests.
    ///
    /// # Errors
    /// The disk fails, or has lost one.
    pub fn referrers(&self, name: &RepoName, subject: &Digest) -> Result<Vec<(Digest, Vec<u8>)>, StorageError> {
        let mut found = Vec::new();
        for (file, path) in durable::entries(&self.repository(name).referrers(subject))? {
            let Some(referrer) = layout::parse_file_name(&file) else { continue };
            if let Some(descriptor) = durable::read_ours(&path)? {
                found.push((referrer, descriptor));
            }
        }
        found.sort_unstable_by_key(|(referrer, _)| *referrer);
        Ok(found)
    }

    /// The repositories after one in which something is, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub fn repositories(&self, after: Option<&RepoName>, limit: usize) -> Result<Vec<RepoName>, StorageError> {
        if index_is_up_to_date(&self.vault) {
            return Ok(self.vault.index.hosted(after, limit));
        }
        let mut names = Vec::new();
        for (name, _) in repositories::hosted(&self.vault.layout)? {
            if after.is_none_or(|after| name > *after) && self.exists(&name)? {
                names.push(name);
            }
        }
        names.sort_unstable();
        names.truncate(limit);
        Ok(names)
    }

    /// Some repositories that hold a digest, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub fn holders(&self, digest: &Digest, limit: usize) -> Result<Vec<RepoName>, StorageError> {
        holders(&self.vault, digest, limit)
    }

    /// Lets a repository have a blob that another holds. Says whether it came to that.
    ///
    /// # Errors
    /// The disk fails.
    pub fn mount(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> Result<bool, StorageError> {
        let _open = self.vault.while_open()?;
        match open(&self.vault, from, digest) {
            Ok(Some((_, blob))) => add_blob_link(&self.vault, to, digest, blob.size()).map(|()| true),
            // What is lost must be pushed.
            Ok(None) | Err(StorageError::Lost { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins to take content of some `length` for a repository that will hold it. Nobody can read it before that.
    ///
    /// # Errors
    /// The disk fails, or has no room.
    pub fn ingest(&self, digest: &Digest, length: u64) -> Result<Ingest, StorageError> {
        self.vault.space.spare(length)?;
        Ingest::unnamed(&self.vault.layout.ingest(), self.vault.layout.blob(digest), *digest)
    }

    /// Ends it: the content is here, right and durable.
    ///
    /// # Errors
    /// It hashes to something else, the disk fails, or the server is stopping.
    pub fn commit(&self, digest: &Digest, ingest: Ingest) -> Result<BlobFile, StorageError> {
        self.vault.commit(digest, ingest)
    }

    /// Begins a change to a repository's manifests and tags. Others wait until it is dropped.
    ///
    /// # Errors
    /// The server is stopping.
    pub fn edit<'a>(&'a self, name: &'a RepoName) -> Result<Edit<'a>, StorageError> {
        let open = self.vault.while_open()?;
        Ok(self.edit_while(open, name))
    }

    /// The same for one that adds content: it is here before others have to wait, and nobody takes it away before it is linked.
    ///
    /// # Errors
    /// It hashes to something else, the disk fails or has less than must stay free, or the server is stopping.
    pub fn edit_with<'a>(
        &'a self,
        name: &'a RepoName,
        digest: &Digest,
        content: &[u8],
    ) -> Result<Edit<'a>, StorageError> {
        self.vault.space.spare(content.len() as u64)?;
        let open = self.vault.while_open()?;
        self.vault.put(&open, digest, content)?;
        Ok(self.edit_while(open, name))
    }

    fn edit_while<'a>(&'a self, open: Open<'a>, name: &'a RepoName) -> Edit<'a> {
        let turn = self.vault.turns.wait(name);
        Edit { vault: &self.vault, name, directory: self.repository(name), _turn: turn, _open: open }
    }

    /// Sets content aside that is not what its digest says.
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

    /// What could be collected if it stayed unused, and for how long it has been. Removes nothing.
    ///
    /// # Errors
    /// The files could not be read completely: nothing is concluded then.
    pub fn garbage(&self) -> Result<Vec<Garbage>, StorageError> {
        garbage::look(&self.vault)
    }

    /// Removes what nobody has needed for at least `grace`.
    ///
    /// # Errors
    /// The files could not be read completely, or one could not be removed.
    pub fn collect_garbage(&self, grace: Duration) -> Result<Collected, StorageError> {
        garbage::collect(&self.vault, grace)
    }

    fn repository(&self, name: &RepoName) -> RepositoryDirectory {
        self.vault.layout.hosted_repository(name)
    }
}

/// What a repository has.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// Its manifests: what they are, and their length in bytes.
    pub manifests: Vec<(Digest, MediaType, u64)>,
    /// Its tags.
    pub tags: Vec<(Tag, Digest)>,
    /// The files of links and tags that cannot be read any more.
    pub damaged: Vec<PathBuf>,
}

/// A change to one repository, during which nobody else changes its manifests and tags, and no garbage is collected.
pub struct Edit<'a> {
    vault: &'a Vault,
    name: &'a RepoName,
    directory: RepositoryDirectory,
    _turn: Turn<'a>,
    _open: Open<'a>,
}

impl Edit<'_> {
    /// As [`Hosted::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(&self, digest: &Digest) -> Result<Option<(Link, BlobFile)>, StorageError> {
        open(self.vault, self.name, digest)
    }

    /// The repository has a blob that is here from now on, whoever held it before: that it may is for the caller to know.
    /// Says whether it is here.
    ///
    /// # Errors
    /// The disk fails.
    pub fn adopt(&self, digest: &Digest) -> Result<bool, StorageError> {
        let Some(blob) = self.vault.blob(digest)? else { return Ok(false) };
        add_blob_link(self.vault, self.name, digest, blob.size()).map(|()| true)
    }

    /// As [`Hosted::tag`].
    ///
    /// # Errors
    /// As there.
    pub fn tag(&self, tag: &Tag) -> Result<Option<Digest>, StorageError> {
        read_tag(&self.directory.tag(tag))
    }

    /// All that the repository has, as of one moment.
    ///
    /// # Errors
    /// The disk fails.
    pub fn holdings(&self) -> Result<Holdings, StorageError> {
        let mut holdings = Holdings::default();
        for (file, path) in durable::entries(&self.directory.links())? {
            let Some(digest) = layout::parse_file_name(&file) else { continue };
            match link(self.vault, self.name, &digest) {
                Ok(Some(Link::Manifest { media_type, size })) => holdings.manifests.push((digest, media_type, size)),
                Ok(Some(Link::Blob { .. }) | None) => {}
                Err(StorageError::Damaged { .. }) => holdings.damaged.push(path),
                Err(error) => return Err(error),
            }
        }
        for (file, path) in durable::entries(&self.directory.tags())? {
            let Ok(tag) = file.parse() else { continue };
            match read_tag(&path) {
                Ok(Some(digest)) => holdings.tags.push((tag, digest)),
                Ok(None) => {}
                Err(StorageError::Damaged { .. }) => holdings.damaged.push(path),
                Err(error) => return Err(error),
            }
        }
        Ok(holdings)
    }

    /// The repository has this blob from now on. A manifest of the same digest stays one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn add_blob(&self, digest: &Digest, size: u64) -> Result<(), StorageError> {
        add_blob_link(self.vault, self.name, digest, size)
    }

    /// The repository has this content from now on.
    ///
    /// # Errors
    /// The disk fails.
    pub fn set_link(&self, digest: &Digest, link: Link) -> Result<(), StorageError> {
        set_link(self.vault, self.name, digest, link)
    }

    /// The repository does not have this content any more. Says whether it had.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove_link(&self, digest: &Digest) -> Result<bool, StorageError> {
        let was = durable::remove(&self.directory.link(digest))?;
        self.vault.index.record(Change::Unlinked { repository: self.name.clone().into(), digest: *digest });
        release(self.vault, digest);
        Ok(was)
    }

    /// The tag means this from now on.
    ///
    /// # Errors
    /// The disk fails.
    pub fn set_tag(&self, tag: &Tag, digest: &Digest) -> Result<(), StorageError> {
        self.set_tags(&[tag], digest)
    }

    /// All these tags mean this from now on.
    ///
    /// # Errors
    /// The disk fails: if it is full, none of them has changed.
    pub fn set_tags(&self, tags: &[&Tag], digest: &Digest) -> Result<(), StorageError> {
        let at = self.vault.clock.unix_seconds();
        let record = serde_json::to_vec(&TagRecord::new(*digest, at)).unwrap_or_default();
        let names: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
        durable::replace_all(&self.directory.tags(), &names, &self.vault.layout.ingest(), &record)?;
        for tag in tags {
            let (repository, tag) = (self.name.clone().into(), (*tag).clone());
            self.vault.index.record(Change::TagSet { repository, tag, digest: *digest, at });
        }
        Ok(())
    }

    /// The tag means nothing any more. Says whether it did.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove_tag(&self, tag: &Tag) -> Result<bool, StorageError> {
        let was = durable::remove(&self.directory.tag(tag))?;
        self.vault.index.record(Change::TagRemoved { repository: self.name.clone().into(), tag: tag.clone() });
        Ok(was)
    }

    /// The tags that mean this digest. One that cannot be read means nothing that can be served.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tags_of(&self, digest: &Digest) -> Result<Vec<Tag>, StorageError> {
        let mut tags = Vec::new();
        for (tag, path) in durable::entries(&self.directory.tags())? {
            let Ok(tag) = tag.parse() else { continue };
            match read_tag(&path) {
                Ok(Some(meant)) if meant == *digest => tags.push(tag),
                Ok(_) | Err(StorageError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tags)
    }

    /// `referrer` refers to `subject`, which need not be here.
    ///
    /// # Errors
    /// The disk fails.
    pub fn add_referrer(&self, subject: &Digest, referrer: &Digest, descriptor: &[u8]) -> Result<(), StorageError> {
        self.vault.replace(self.directory.referrer(subject, referrer), descriptor)
    }

    /// `referrer` refers to nothing any more.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove_referrer(&self, subject: &Digest, referrer: &Digest) -> Result<(), StorageError> {
        durable::remove(&self.directory.referrer(subject, referrer)).map(|_was| ())
    }
}
