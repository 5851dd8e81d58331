//! Content that comes into the cache by another road than from its upstream: an operator brings it. Every byte is checked
//! against its digest; who brings it vouches for what a tag means. Whether a repository is for everyone is still decided when
//! somebody asks for it.

use bytes::Bytes;

use super::manifests::Manifests;
use super::room::Rooms;
use super::tag::Tags;
use crate::oci::{Digest, MediaType, Repository, Tag};
use crate::storage::{Ingest, Link, Room, StorageError, Store};
use crate::task;

/// Takes it. Clones share everything.
#[derive(Clone)]
pub struct Intake {
    pub(super) store: Store,
    pub(super) rooms: Rooms,
    pub(super) manifests: Manifests,
    pub(super) tags: Tags,
}

/// A blob on its way in. Dropped before its end, nothing of it is kept.
pub struct Arriving {
    store: Store,
    digest: Digest,
    ingest: Ingest,
    room: Room,
    size: u64,
    left: u64,
}

impl Intake {
    /// Whether a blob is here. If it is, the repository may be asked for it from now on.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn has(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError> {
        let (store, repository, digest) = (self.store.clone(), repository.clone(), *digest);
        let look = move || {
            let Some(blob) = store.blob(&digest)? else { return Ok(false) };
            store.add_link(&repository, &digest, Link::Blob { size: blob.size() }).map(|()| true)
        };
        task::blocking(look).await
    }

    /// Begins to take a blob of `size` bytes.
    ///
    /// # Errors
    /// There is no room, and none can be made; or the disk fails.
    pub async fn begin(&self, digest: &Digest, size: u64) -> Result<Arriving, StorageError> {
        let (ingest, room) = self.rooms.ingest_beside(digest, size).await?;
        Ok(Arriving { store: self.store.clone(), digest: *digest, ingest, room, size, left: size })
    }

    /// Takes a manifest.
    ///
    /// # Errors
    /// It is not that of its digest, there is no room, or the disk fails.
    pub async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: MediaType,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        let room = self.rooms.reserve(bytes.len() as u64).await?;
        let (store, at, wanted) = (self.store.clone(), repository.clone(), *digest);
        task::blocking(move || store.put_manifest(&at, &wanted, &bytes, media_type, room)).await?;
        self.manifests.forget(repository, &[*digest]);
        Ok(())
    }

    /// The tag means this manifest from now on, until upstream says otherwise.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), StorageError> {
        let (store, at, name, digest) = (self.store.clone(), repository.clone(), tag.clone(), *digest);
        task::blocking(move || store.set_tag(&at, &name, &digest, false)).await?;
        self.tags.forget(repository, tag);
        Ok(())
    }
}

impl Arriving {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// There are more than were announced, or the disk fails.
    pub async fn append(mut self, piece: Bytes) -> Result<Arriving, StorageError> {
        let Some(left) = self.left.checked_sub(piece.len() as u64) else {
            let actual = self.size - self.left + piece.len() as u64;
            return Err(StorageError::SizeMismatch { expected: self.size, actual });
        };
        self.left = left;
        task::blocking(move || self.ingest.append(&piece).map(|()| self)).await
    }

    /// That was all of it: it is here now, and the repository may be asked for it.
    ///
    /// # Errors
    /// It is not what its digest says, there are fewer bytes than were announced, or the disk fails.
    pub async fn finish(self, repository: &Repository) -> Result<(), StorageError> {
        if self.left > 0 {
            return Err(StorageError::SizeMismatch { expected: self.size, actual: self.size - self.left });
        }
        let (repository, Arriving { store, digest, ingest, room, size, .. }) = (repository.clone(), self);
        let commit = move || {
            store.commit(&digest, ingest, room)?;
            store.add_link(&repository, &digest, Link::Blob { size })
        };
        task::blocking(commit).await
    }
}
