//! Manifests by digest: small, whole, verified before anyone sees them, and kept in memory while they are hot.
//!
//! The bytes that upstream sent are the bytes that clients get. A manifest is served to those who ask in a repository
//! that upstream has served it in, and to nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::CacheError;
use super::ledger::{Ledger, OnBehalfOf};
use super::metrics::Metrics;
use super::origin::Origins;
use super::outcome::Outcome;
use super::room::Rooms;
use super::single_flight::{Role, SingleFlight};
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::{Digest, Manifest, MediaType, Reference, Registry, Repository, Tag};
use crate::storage::{StorageError, Store};
use crate::task;
use crate::upstream::{FetchedManifest, ManifestHead, Reach};

/// Bytes of manifests held in memory.
const HOT_BYTES: u64 = 64 << 20;
/// Blobs whose length is remembered because a manifest announced it.
const MAX_ANNOUNCED: u64 = 100_000;
/// Manifests of which it is remembered that the disk did not take them.
const MAX_UNKEPT: u64 = 10_000;
/// How long a disk that took none is left alone.
const UNKEPT: Duration = Duration::from_secs(10);

type Key = (Repository, Digest);

/// A verified manifest.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// What its bytes hash to.
    pub digest: Digest,
    /// What its bytes say it is.
    pub media_type: MediaType,
    /// Its bytes, as upstream sent them.
    pub bytes: Bytes,
}

/// What a tag means, as upstream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The manifest.
    pub digest: Digest,
    /// Whether a fallback says so.
    pub is_fallback: bool,
}

/// The manifests of all cached repositories. Clones share them.
#[derive(Clone)]
pub struct Manifests {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    origins: Origins,
    metrics: Metrics,
    clock: Clock,
    ledger: Ledger,
    rooms: Rooms,
    hot: Memory<Key, StoredManifest>,
    announced: Memory<Key, u64>,
    // When it was last tried.
    unkept: Memory<Key, Instant>,
    fetches: SingleFlight<Key, StoredManifest>,
}

enum Found {
    Readable(StoredManifest),
    // Another repository's; whether this one may have it is upstream's to say.
    Unlinked(StoredManifest),
    Nothing,
}

impl Manifests {
    /// Manifests over `store`, fetched from `origins`.
    pub fn new(
        store: Store,
        origins: Origins,
        metrics: Metrics,
        clock: Clock,
        ledger: Ledger,
        rooms: Rooms,
    ) -> Manifests {
        let weigh = |_: &Key, manifest: &StoredManifest| manifest.bytes.len().try_into().unwrap_or(u32::MAX);
        let hot = memory::of_weight(HOT_BYTES, weigh);
        let announced = memory::of_entries(MAX_ANNOUNCED);
        let unkept = memory::of_entries(MAX_UNKEPT);
        let fetches = SingleFlight::new("manifest");
        Manifests {
            inner: Arc::new(Inner { store, origins, metrics, clock, ledger, rooms, hot, announced, unkept, fetches }),
        }
    }

    /// The manifest of `digest` in `repository`: from memory, from disk, or from upstream.
    pub async fn get(
        &self,
        repository: &Repository,
        digest: &Digest,
        on_behalf_of: OnBehalfOf,
    ) -> Result<(StoredManifest, Outcome), CacheError> {
        let key = (repository.clone(), *digest);
        if let Some(manifest) = self.inner.hot.get(&key) {
            self.inner.store.used(digest);
            // What is in memory alone would be lost with the process.
            if self.inner.unkept.get(&key).is_some_and(|tried| self.inner.clock.tick() >= tried + UNKEPT) {
                Box::pin(self.inner.keep(key, manifest.clone())).await?;
            }
            return Ok((manifest, Outcome::Hit));
        }
        Box::pin(self.find_or_fetch(key, on_behalf_of)).await
    }

    /// What is not in memory.
    async fn find_or_fetch(&self, key: Key, on_behalf_of: OnBehalfOf) -> Result<(StoredManifest, Outcome), CacheError> {
        let (inner, wanted) = (self.inner.clone(), key.clone());
        let unlinked = match task::blocking(move || inner.find(&wanted)).await? {
            Found::Readable(manifest) => {
                self.inner.store.used(&key.1);
                self.inner.remember(key, &manifest);
                return Ok((manifest, Outcome::Hit));
            }
            Found::Unlinked(manifest) => Some(manifest),
            Found::Nothing => None,
        };
        let outcome = |role| match (role, unlinked.is_some()) {
            (Role::Joined, _) => Outcome::Joined,
            (Role::Led, true) => Outcome::Revalidated,
            (Role::Led, false) => Outcome::Miss,
        };
        let work = || {
            let (inner, key, unlinked) = (self.inner.clone(), key.clone(), unlinked.clone());
            async move {
                match unlinked {
                    Some(manifest) => inner.authorise(key, manifest, on_behalf_of).await,
                    None => {
                        let reference = Reference::Digest(key.1);
                        let fetched = inner.fetch(key.0, &reference, Reach::Fallbacks, on_behalf_of).await;
                        fetched.map(|(manifest, _)| manifest)
                    }
                }
            }
        };
        let (answer, role) = self.inner.fetches.join(key.clone(), work).await;
        Ok((answer?, outcome(role)))
    }

    /// Brings a manifest back to disk that is not there any more: from memory, or from upstream.
    ///
    /// # Errors
    /// As [`Manifests::get`].
    pub async fn restore(
        &self,
        repository: &Repository,
        digest: &Digest,
        on_behalf_of: OnBehalfOf,
    ) -> Result<(), CacheError> {
        let key = (repository.clone(), *digest);
        match self.inner.hot.get(&key) {
            Some(manifest) => self.inner.keep(key, manifest).await.map(|_manifest| ()),
            None => self.get(repository, digest, on_behalf_of).await.map(|_manifest| ()),
        }
    }

    /// A manifest that `repository` may be asked for, if it is here: nobody is asked.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn kept(&self, repository: &Repository, digest: &Digest) -> Result<Option<StoredManifest>, CacheError> {
        let key = (repository.clone(), *digest);
        if let Some(manifest) = self.inner.hot.get(&key) {
            return Ok(Some(manifest));
        }
        let inner = self.inner.clone();
        match task::blocking(move || inner.find(&key)).await? {
            Found::Readable(manifest) => Ok(Some(manifest)),
            Found::Unlinked(_) | Found::Nothing => Ok(None),
        }
    }

    /// Asks upstream what `tag` means now; afterwards that manifest is here. With a copy `at_hand` only a HEAD is sent
    /// if nothing changed (it is free of charge on Docker Hub, where a GET is a pull), and only to the registry itself:
    /// what a fallback has may be older than the copy.
    pub async fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
        at_hand: Option<Digest>,
        on_behalf_of: OnBehalfOf,
    ) -> Result<Meaning, CacheError> {
        let reach = if at_hand.is_some() { Reach::Registry } else { Reach::Fallbacks };
        let meaning = self.meaning(repository, tag, reach, on_behalf_of).await?;
        if Some(meaning.digest) != at_hand {
            self.get(repository, &meaning.digest, on_behalf_of).await?;
        }
        Ok(meaning)
    }

    /// The same, whether or not that manifest is here: only if HEAD does not tell, it is fetched.
    pub async fn meaning(
        &self,
        repository: &Repository,
        tag: &Tag,
        reach: Reach,
        on_behalf_of: OnBehalfOf,
    ) -> Result<Meaning, CacheError> {
        let upstream = self.inner.origins.of(repository)?;
        let reference = Reference::Tag(tag.clone());
        match upstream.head_manifest(&repository.name, &reference, reach).await {
            Ok(ManifestHead { digest: Some(digest), is_fallback }) => return Ok(Meaning { digest, is_fallback }),
            Ok(ManifestHead { digest: None, .. }) => {}
            // Docker Hub has answered HEAD with 401 and 405 for hours while GET worked. With a copy at hand that is not
            // worth a pull; without one it is the only way.
            Err(error) if reach == Reach::Fallbacks && error.is_doubtful() => {}
            Err(error) => return Err(CacheError::from_upstream(&repository.registry, error)),
        }
        let (manifest, is_fallback) = self.inner.fetch(repository.clone(), &reference, reach, on_behalf_of).await?;
        Ok(Meaning { digest: manifest.digest, is_fallback })
    }

    /// What was remembered of these is forgotten: they were taken away.
    pub fn forget(&self, repository: &Repository, digests: &[Digest]) {
        for digest in digests {
            let key = (repository.clone(), *digest);
            self.inner.hot.invalidate(&key);
            self.inner.announced.invalidate(&key);
            self.inner.unkept.invalidate(&key);
        }
    }

    /// How long a blob is, if a manifest of `repository` that was served lately says so.
    pub fn announced(&self, repository: &Repository, digest: &Digest) -> Option<u64> {
        self.inner.announced.get(&(repository.clone(), *digest))
    }
}

impl Inner {
    fn find(&self, (repository, digest): &Key) -> Result<Found, CacheError> {
        let Some(blob) = self.store.blob(digest)? else { return Ok(Found::Nothing) };
        if blob.size() > crate::oci::manifest::MAX_MANIFEST as u64 {
            return Ok(Found::Nothing);
        }
        let bytes = blob.read_all().map_err(|error| StorageError::unreadable(digest, error))?;
        if !digest.matches(&bytes) {
            self.metrics.stored_mismatch();
            self.store.quarantine(digest, "its bytes are wrong")?;
            return Ok(Found::Nothing);
        }
        // Whether it is a manifest at all is told only to those who may read it.
        let linked = self.store.link(repository, digest)?.is_some();
        match view(&repository.registry, *digest, bytes) {
            Ok((manifest, parsed)) if linked => {
                self.announce(repository, &parsed);
                Ok(Found::Readable(manifest))
            }
            Ok((manifest, _)) => Ok(Found::Unlinked(manifest)),
            Err(error) if linked => Err(error),
            Err(_) => Ok(Found::Nothing),
        }
    }

    async fn authorise(
        &self,
        key: Key,
        manifest: StoredManifest,
        on_behalf_of: OnBehalfOf,
    ) -> Result<StoredManifest, CacheError> {
        let upstream = self.origins.of(&key.0)?;
        let reference = Reference::Digest(key.1);
        match upstream.head_manifest(&key.0.name, &reference, Reach::Fallbacks).await {
            Ok(_head) => self.keep(key, manifest).await,
            Err(error) if error.is_doubtful() => {
                self.fetch(key.0, &reference, Reach::Fallbacks, on_behalf_of).await.map(|(manifest, _)| manifest)
            }
            Err(error) => Err(CacheError::from_upstream(&key.0.registry, error)),
        }
    }

    /// A manifest from upstream, and whether a fallback sent it.
    async fn fetch(
        &self,
        repository: Repository,
        reference: &Reference,
        reach: Reach,
        on_behalf_of: OnBehalfOf,
    ) -> Result<(StoredManifest, bool), CacheError> {
        let upstream = self.origins.of(&repository)?;
        let fetched = upstream.manifest(&repository.name, reference, reach).await;
        let fetched = fetched.map_err(|error| CacheError::from_upstream(&repository.registry, error))?;
        let FetchedManifest { bytes, is_fallback } = fetched;
        // What a fallback sends is none of the budget's.
        if !is_fallback {
            self.ledger.note(self.clock.unix_seconds(), &repository, reference, on_behalf_of);
        }
        let digest = match reference {
            Reference::Tag(_) => Digest::sha256(&bytes),
            Reference::Digest(digest) if digest.matches(&bytes) => *digest,
            Reference::Digest(digest) => {
                self.metrics.upstream_mismatch();
                return Err(CacheError::Mismatch { registry: repository.registry, digest: *digest });
            }
        };
        let (manifest, _) = view(&repository.registry, digest, bytes).map_err(|error| match reference {
            // A page or a fragment under a tag is trouble at upstream; under its own digest it is what it is.
            Reference::Tag(_) => error.as_trouble(),
            Reference::Digest(_) => error,
        })?;
        self.keep((repository, digest), manifest).await.map(|manifest| (manifest, is_fallback))
    }

    fn announce(&self, repository: &Repository, manifest: &Manifest) {
        for blob in manifest.blobs() {
            self.announced.insert((repository.clone(), blob.digest), blob.size);
        }
    }

    /// Content first, then the right to it: a crash in between leaves content that nobody may read yet. A disk that fails
    /// is no reason to refuse what is verified and in hand.
    async fn keep(&self, key: Key, manifest: StoredManifest) -> Result<StoredManifest, CacheError> {
        let (store, kept) = (self.store.clone(), manifest.clone());
        let (repository, digest) = key.clone();
        let written = match self.rooms.reserve(kept.bytes.len() as u64).await {
            Err(error) => Err(error),
            Ok(room) => {
                let work = move || store.put_manifest(&repository, &digest, &kept.bytes, kept.media_type, room);
                task::blocking(work).await
            }
        };
        match written {
            Ok(()) => self.unkept.invalidate(&key),
            Err(error) => {
                tracing::error!(repository = %key.0, digest = %key.1, %error, "a manifest is served without being kept");
                self.unkept.insert(key.clone(), self.clock.tick());
            }
        }
        if let Ok(parsed) = Manifest::parse(&manifest.bytes) {
            self.announce(&key.0, &parsed);
        }
        self.remember(key, &manifest);
        Ok(manifest)
    }

    fn remember(&self, key: Key, manifest: &StoredManifest) {
        self.hot.insert(key, manifest.clone());
    }
}

fn view(registry: &Registry, digest: Digest, bytes: Bytes) -> Result<(StoredManifest, Manifest), CacheError> {
    match Manifest::parse(&bytes) {
        Ok(parsed) => Ok((StoredManifest { digest, media_type: parsed.media_type, bytes }, parsed)),
        Err(reason) => Err(CacheError::NotAManifest { registry: registry.clone(), reason }),
    }
}
