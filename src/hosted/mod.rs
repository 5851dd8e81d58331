//! The team's own registry: repositories that clients push to, and that no upstream knows.
//!
//! Beside `cache`, and blind to it: what is hosted never comes from an upstream, and what is cached is never hosted. Who
//! may do what is decided above; what an answer looks like, too.

mod error;
mod inventory;
mod manifests;
mod memory;
mod referrers;
mod session;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::Value;

pub use error::HostedError;
pub use inventory::HostedImage;
pub use manifests::{Accepted, NewManifest, StoredManifest};
pub use session::{ChunkRange, MAX_BLOB};
pub use uploads::{MAX_UPLOADS, Pusher};

use self::memory::ManifestMemory;
use self::uploads::Uploads;
use crate::clock::Clock;
use crate::oci::{Algorithm, Digest, Reference, RepoName, Tag};
use crate::storage::{self, BlobFile, Collected, Extent, Garbage, Link, StorageError, Store, UploadId, Verdict};
use crate::task;

/// How long nobody must have needed something before it is garbage: longer than the pause between two requests of a push.
pub const GRACE: Duration = Duration::from_secs(3600);
/// How often garbage is looked for.
const EVERY: Duration = Duration::from_secs(600);
/// Repositories that are asked for a blob when a client does not say from which one to mount it.
const MAX_HOLDERS: usize = 100;

/// All hosted repositories. Clones share them.
#[derive(Clone)]
pub struct Hosted {
    store: storage::Hosted,
    uploads: Uploads,
    memory: Arc<ManifestMemory>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Its entries.
    pub entries: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

impl Hosted {
    /// The hosted half of `store`, with the uploads that an earlier process left. Blocks.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(store: &Store, clock: Clock) -> Result<Hosted, StorageError> {
        let uploads = Uploads::open(store.uploads(), clock)?;
        Ok(Hosted { store: store.hosted(), uploads, memory: Arc::new(ManifestMemory::new()) })
    }

    /// A manifest.
    ///
    /// # Errors
    /// It does not exist, or the disk fails.
    pub async fn manifest(&self, name: &RepoName, reference: &Reference) -> Result<StoredManifest, HostedError> {
        let state = self.store.unchanged(name);
        if let Some(held) = state.and_then(|state| self.memory.get(name, reference, state)) {
            return Ok(held);
        }
        let (store, memory, name, reference) =
            (self.store.clone(), self.memory.clone(), name.clone(), reference.clone());
        task::blocking(move || {
            let found = manifests::get(&store, &name, &reference)?;
            if let Some(state) = state {
                memory.hold(name, reference, state, found.clone());
            }
            Ok(found)
        })
        .await
    }

    /// Takes a manifest. When this returns, it and its tags are durable.
    ///
    /// # Errors
    /// It is none, or names what is not here, or an immutable tag stands for another, or the disk fails.
    pub async fn put_manifest(&self, name: &RepoName, new: NewManifest) -> Result<Accepted, HostedError> {
        let (store, name) = (self.store.clone(), name.clone());
        task::blocking(move || manifests::put(&store, &name, &new)).await
    }

    /// Takes away a tag, or a manifest and its tags.
    ///
    /// # Errors
    /// It does not exist, or the disk fails.
    pub async fn delete_manifest(&self, name: &RepoName, reference: &Reference) -> Result<(), HostedError> {
        let (store, name, reference) = (self.store.clone(), name.clone(), reference.clone());
        task::blocking(move || manifests::delete(&store, &name, &reference)).await
    }

    /// A blob.
    ///
    /// # Errors
    /// It does not exist, or the disk fails, or has lost it.
    pub async fn blob(&self, name: &RepoName, digest: &Digest) -> Result<BlobFile, HostedError> {
        let (store, name, digest) = (self.store.clone(), name.clone(), *digest);
        task::blocking(move || match store.open(&name, &digest)? {
            Some((_, blob)) => Ok(blob),
            None => Err(manifests::absent(&store, &name, HostedError::NoBlob)),
        })
        .await
    }

    /// Looks at a part of a blob before it is sent. One that is not what was pushed is set aside.
    ///
    /// # Errors
    /// It is damaged, or the disk fails.
    pub async fn check(&self, digest: &Digest, part: &Extent) -> Result<(), HostedError> {
        let failed = |error| HostedError::from(StorageError::unreadable(digest, error));
        if part.is_ready().map_err(failed)? {
            return Ok(());
        }
        let (store, digest, part) = (self.store.clone(), *digest, part.clone());
        task::blocking(move || match part.load() {
            Ok(()) => Ok(()),
            Err(error) if !storage::is_lost(&error) => Err(StorageError::unreadable(&digest, error).into()),
            Err(_) => match store.examine(&digest)? {
                // The checksum was wrong, and is right now.
                Verdict::Right | Verdict::Summed => Ok(()),
                Verdict::Damaged => Err(StorageError::Lost { digest, new: true }.into()),
                Verdict::Gone => Err(StorageError::Lost { digest, new: false }.into()),
            },
        })
        .await
    }

    /// How long a blob is. One that is known to be lost is told to be absent, so that clients push it again.
    ///
    /// # Errors
    /// It does not exist, or the disk fails, or it was just now found to be lost.
    pub async fn blob_size(&self, name: &RepoName, digest: &Digest) -> Result<u64, HostedError> {
        match self.blob(name, digest).await {
            Ok(blob) => Ok(blob.size()),
            Err(HostedError::Storage(error)) if matches!(*error, StorageError::Lost { new: false, .. }) => {
                tracing::error!(repository = %name, %error, "a client is told that it does not exist");
                Err(HostedError::NoBlob)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a blob away from a repository, whatever manifests name it.
    ///
    /// # Errors
    /// It does not exist, or the disk fails.
    pub async fn delete_blob(&self, name: &RepoName, digest: &Digest) -> Result<(), HostedError> {
        let (store, name, digest) = (self.store.clone(), name.clone(), *digest);
        task::blocking(move || {
            let edit = store.edit(&name)?;
            match store.link(&name, &digest)? {
                Some(Link::Blob { .. }) => Ok(edit.remove_link(&digest).map(|_was| ())?),
                Some(Link::Manifest { .. }) => Err(HostedError::IsManifest(digest)),
                None => Err(manifests::absent(&store, &name, HostedError::NoBlob)),
            }
        })
        .await
    }

    /// Lets `to` have a blob that is in `from`, or, without one, in any repository that `readable` lets through. Says
    /// whether it came to that.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn mount(
        &self,
        from: Option<&RepoName>,
        to: &RepoName,
        digest: &Digest,
        readable: impl Fn(&RepoName) -> bool,
    ) -> Result<bool, HostedError> {
        let (store, to, digest) = (self.store.clone(), to.clone(), *digest);
        let holders = match from {
            Some(from) => vec![from.clone()],
            None => {
                let index = self.store.clone();
                task::blocking(move || index.holders(&digest, MAX_HOLDERS)).await?
            }
        };
        let Some(from) = holders.into_iter().find(|holder| readable(holder)) else { return Ok(false) };
        Ok(task::blocking(move || store.mount(&from, &to, &digest)).await?)
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// There are too many, or the disk fails.
    pub async fn begin_upload(&self, who: &Pusher, algorithm: Algorithm) -> Result<UploadId, HostedError> {
        self.uploads.begin(who, algorithm).await
    }

    /// Takes in more of an upload. Returns how many bytes have come in all.
    ///
    /// # Errors
    /// There is no such upload, the chunk does not fit, the client broke off, or the disk fails.
    pub async fn append<E: std::fmt::Display>(
        &self,
        who: &Pusher,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, HostedError> {
        self.uploads.append(who, id, range, body).await
    }

    /// How many bytes of an upload have come.
    ///
    /// # Errors
    /// There is no such upload, or the disk fails.
    pub async fn upload_status(&self, who: &Pusher, id: &UploadId) -> Result<u64, HostedError> {
        self.uploads.status(who, id).await
    }

    /// Takes in the rest of an upload and makes it a blob. When this returns, that is durable.
    ///
    /// # Errors
    /// As [`Hosted::append`], or the content is not that of `digest`: then the upload is over.
    pub async fn finish_upload<E: std::fmt::Display>(
        &self,
        who: &Pusher,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        digest: Digest,
    ) -> Result<(), HostedError> {
        self.uploads.finish(who, id, range, body, digest).await
    }

    /// Takes in a blob in one go. When this returns, it is durable.
    ///
    /// # Errors
    /// As [`Hosted::finish_upload`].
    pub async fn push_blob<E: std::fmt::Display>(
        &self,
        who: &Pusher,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        digest: Digest,
    ) -> Result<(), HostedError> {
        self.uploads.push(who, body, digest).await
    }

    /// Ends an upload without a blob.
    ///
    /// # Errors
    /// There is no such upload, or the disk fails.
    pub async fn cancel_upload(&self, who: &Pusher, id: &UploadId) -> Result<(), HostedError> {
        self.uploads.cancel(who, id).await
    }

    /// A repository's tags after one, in byte order.
    ///
    /// # Errors
    /// There is no such repository, or the disk fails.
    pub async fn tags(&self, name: &RepoName, last: Option<&str>, n: usize) -> Result<Page<Tag>, HostedError> {
        let (store, name, last) = (self.store.clone(), name.clone(), last.map(ToOwned::to_owned));
        task::blocking(move || {
            let mut tags = store.tags(&name)?;
            if tags.is_empty() && !store.exists(&name)? {
                return Err(HostedError::NoRepository);
            }
            if let Some(last) = last {
                tags.retain(|tag| *tag.as_str() > *last);
            }
            let more = tags.len() > n;
            tags.truncate(n);
            Ok(Page { entries: tags, more })
        })
        .await
    }

    /// The repositories after one that `visible` lets through, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn repositories(
        &self,
        last: Option<RepoName>,
        n: usize,
        visible: impl Fn(&RepoName) -> bool,
    ) -> Result<Page<RepoName>, HostedError> {
        const STEP: usize = 1000;
        let (mut entries, mut last) = (Vec::new(), last);
        loop {
            let (store, after) = (self.store.clone(), last.clone());
            let names = task::blocking(move || store.repositories(after.as_ref(), STEP)).await?;
            let all = names.len() < STEP;
            last = names.last().cloned();
            entries.extend(names.into_iter().filter(&visible).take(n + 1 - entries.len()));
            if all || entries.len() > n {
                let more = entries.len() > n;
                entries.truncate(n);
                return Ok(Page { entries, more });
            }
        }
    }

    /// The descriptors of what refers to a manifest, in the order of their digests; none where there is no repository.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn referrers(&self, name: &RepoName, subject: &Digest) -> Result<Vec<(Digest, Value)>, HostedError> {
        let (store, name, subject) = (self.store.clone(), name.clone(), *subject);
        task::blocking(move || Ok(referrers::list(&store, &name, &subject)?.into_iter().collect())).await
    }

    /// What our tags mean, with what each takes.
    ///
    /// # Errors
    /// The disk fails, or has lost what a tag means.
    pub async fn images(&self) -> Result<Vec<HostedImage>, StorageError> {
        let store = self.store.clone();
        task::blocking(move || inventory::list(&store)).await
    }

    /// What could be collected, and for how long it has been. Removes nothing.
    ///
    /// # Errors
    /// The files could not be read completely.
    pub async fn garbage(&self) -> Result<Vec<Garbage>, StorageError> {
        let store = self.store.clone();
        task::blocking(move || store.garbage()).await
    }

    /// Removes what nobody has needed for `grace`.
    ///
    /// # Errors
    /// The files could not be read completely, or one could not be removed.
    pub async fn collect_garbage(&self, grace: Duration) -> Result<Collected, StorageError> {
        let store = self.store.clone();
        task::blocking(move || store.collect_garbage(grace)).await
    }

    /// Keeps the house in order, for as long as it is polled: garbage, and uploads that nobody goes on with.
    pub async fn tidy(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            match self.uploads.expire(uploads::LIFETIME).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "uploads that nobody went on with are over"),
                Err(error) => tracing::error!(%error, "uploads that nobody goes on with stay"),
            }
            match self.collect_garbage(GRACE).await {
                Ok(collected) if collected == Collected::default() => {}
                Ok(Collected { links, blobs, bytes }) => tracing::info!(links, blobs, bytes, "garbage was collected"),
                Err(error) => tracing::error!(%error, "no garbage is collected"),
            }
        }
    }
}
