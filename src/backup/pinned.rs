//! What is cached of pinned images, as a backup has it. Fetches nothing, and a look is no use of an image.
//!
//! Of a repository there is only what its own links say: what another one holds under the same digest is missing here, so
//! that no link comes back that upstream did not give.

use std::collections::HashSet;
use std::sync::Arc;

use super::entry::{Entry, Listing};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag};
use crate::storage::{Link, StorageError, Store};

/// Whether what a tag or a digest of a cached repository means is to stay whatever happens.
pub type IsPinned = Arc<dyn Fn(&Repository, &Reference) -> bool + Send + Sync>;

/// All of them. Blocks.
pub(super) fn pinned(store: &Store, is_pinned: &IsPinned) -> Result<Listing, StorageError> {
    let mut listing = Listing::default();
    for repository in store.repositories()? {
        let mut images = Images { store, repository, seen: HashSet::new(), entries: Vec::new() };
        let mut roots = Vec::new();
        for tag in store.tags(&images.repository)? {
            if is_pinned(&images.repository, &Reference::Tag(tag.clone())) {
                roots.extend(images.add_tag(tag)?);
            }
        }
        for digest in store.linked(&images.repository)? {
            if is_pinned(&images.repository, &Reference::Digest(digest)) {
                roots.push(digest);
            }
        }
        images.add_all(roots)?;
        listing.entries.extend(images.entries);
    }
    Ok(listing)
}

/// Those of one repository.
struct Images<'a> {
    store: &'a Store,
    repository: Repository,
    /// What has its entries.
    seen: HashSet<Digest>,
    entries: Vec<Entry>,
}

impl Images<'_> {
    /// Says what is below, if the tag means something that is here.
    fn add_tag(&mut self, tag: Tag) -> Result<Vec<Digest>, StorageError> {
        let Some(record) = self.store.tag(&self.repository, &tag)? else { return Ok(Vec::new()) };
        let Some((entry, below)) = self.manifest(&record.digest)? else { return Ok(Vec::new()) };
        let learnt = self.store.tag_checked(&self.repository, &tag).map_or(record.at, |at| at.max(record.at));
        self.seen.insert(record.digest);
        self.entries.push(Entry { tag: Some(tag), learnt, ..entry });
        Ok(below)
    }

    /// These without a tag, and whatever is below them.
    fn add_all(&mut self, mut ahead: Vec<Digest>) -> Result<(), StorageError> {
        while let Some(digest) = ahead.pop() {
            if !self.seen.contains(&digest)
                && let Some((entry, below)) = self.manifest(&digest)?
            {
                self.seen.insert(digest);
                self.entries.push(entry);
                ahead.extend(below);
            }
        }
        Ok(())
    }

    /// A manifest that the repository may be asked for and that is here, and the manifests that it names.
    fn manifest(&self, digest: &Digest) -> Result<Option<(Entry, Vec<Digest>)>, StorageError> {
        let Some(Link::Manifest { media_type, size }) = self.store.link(&self.repository, digest)? else {
            return Ok(None);
        };
        let Some(blob) = self.store.blob(digest)? else { return Ok(None) };
        // One that is damaged is fetched anew when it is asked for.
        let Some(manifest) = blob.read_all().ok().and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            return Ok(None);
        };
        let mut entry = Entry::new(self.repository.clone().into(), *digest, media_type, size);
        for blob in manifest.blobs() {
            let is_ours = self.store.link(&self.repository, &blob.digest)?.is_some();
            if !is_ours || self.store.blob(&blob.digest)?.is_none() {
                entry.absent.push(blob.digest);
            }
        }
        Ok(Some((entry, manifest.manifests.iter().map(|descriptor| descriptor.digest).collect())))
    }
}
