//! The cache: what upstreams have, kept here, and served from here whatever becomes of them.
//!
//! Between `storage` and `upstream`, which do not know each other. Work that several clients wait for belongs to a task
//! and not to the client who asked first; every answer says how it came about ([`Outcome`]).

mod blob_stream;
mod error;
mod fill;
mod flight;
mod manifests;
mod metrics;
mod origin;
mod outcome;
mod referrers;
mod single_flight;
mod tags;

use std::time::Duration;

use tokio::time::timeout;

pub use blob_stream::{Blob, BlobReader, BrokenStream};
pub use error::CacheError;
pub use manifests::StoredManifest;
pub use outcome::Outcome;
pub use referrers::{Index as ReferrersIndex, ReferrersList};
pub use tags::Lifetimes;

use self::blob_stream::Source;
use self::fill::Fill;
use self::flight::{Boarding, Flights, Progress, Seat};
use self::manifests::Manifests;
use self::metrics::{Held, Metrics};
use self::origin::Origins;
use self::referrers::Referrers;
use self::single_flight::SingleFlight;
use self::tags::Tags;
use crate::clock::Clock;
use crate::oci::{Digest, Reference, Repository, Tag};
use crate::storage::{BlobFile, Link, Store};
use crate::task;
use crate::upstream::Upstream;

/// How the cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long answers hold.
    pub lifetimes: Lifetimes,
    /// A client whose blob is not here waits at most this long for the first byte.
    pub first_byte_timeout: Duration,
}

/// A manifest, and how it came about.
#[derive(Clone, Debug)]
pub struct ManifestAnswer {
    /// What is served.
    pub manifest: StoredManifest,
    /// Where it comes from.
    pub outcome: Outcome,
    /// If stale: for how long upstream has not confirmed it.
    pub age: Option<Duration>,
}

/// A page of a repository's tags.
#[derive(Clone, Debug)]
pub struct TagList {
    /// The tags, in the order they came.
    pub tags: Vec<Tag>,
    /// Whether more follow.
    pub more: bool,
    /// Where it comes from.
    pub outcome: Outcome,
}

/// The mirror's content: `storage` and `upstream` as one.
pub struct Cache {
    store: Store,
    origins: Origins,
    settings: Settings,
    metrics: Metrics,
    flights: Flights,
    manifests: Manifests,
    tags: Tags,
    referrers: Referrers,
    // Questions whether a repository may have a blob that is here already.
    rights: SingleFlight<(Repository, Digest), ()>,
}

enum Found {
    Readable(BlobFile),
    Unlinked(BlobFile),
    Nothing,
}

impl Cache {
    /// A cache of `upstreams` in `store`. Neither is asked anything yet.
    pub fn new(
        store: Store,
        upstreams: Vec<Upstream>,
        settings: Settings,
        clock: Clock,
        registry: &prometheus::Registry,
    ) -> Cache {
        let (metrics, origins, lifetimes) = (Metrics::new(registry), Origins::new(upstreams), settings.lifetimes);
        let manifests = Manifests::new(store.clone(), origins.clone(), metrics.clone());
        let tags = Tags::new(store.clone(), manifests.clone(), clock.clone(), lifetimes);
        let referrers = Referrers::new(store.clone(), origins.clone(), manifests.clone(), clock, lifetimes);
        let (flights, rights) = (Flights::default(), SingleFlight::new("right"));
        Cache { store, origins, settings, metrics, flights, manifests, tags, referrers, rights }
    }

    /// The store below, for listings and figures.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The manifest that `reference` means in `repository`.
    ///
    /// # Errors
    /// It does not exist, or is not here and cannot be fetched now.
    pub async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<ManifestAnswer, CacheError> {
        match reference {
            Reference::Digest(digest) => {
                let (manifest, outcome) = self.manifests.get(repository, digest).await?;
                Ok(ManifestAnswer { manifest, outcome, age: None })
            }
            Reference::Tag(tag) => {
                let resolved = self.tags.resolve(repository, tag).await?;
                let (manifest, _) = self.manifests.get(repository, &resolved.digest).await?;
                Ok(ManifestAnswer { manifest, outcome: resolved.outcome, age: resolved.age })
            }
        }
    }

    /// A blob, complete or while it is fetched.
    ///
    /// # Errors
    /// It does not exist, or is not here and cannot be fetched now.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob, CacheError> {
        let mut boarding = match self.find(repository, digest).await? {
            Found::Readable(blob) => return Ok(self.kept(blob, digest, Outcome::Hit)),
            Found::Unlinked(blob) => {
                self.ask_right(repository, digest).await?;
                return Ok(self.kept(blob, digest, Outcome::Revalidated));
            }
            Found::Nothing => self.flights.board(digest, repository)?,
        };
        if let Boarding::Elsewhere(seat) = boarding {
            self.ask_right(repository, digest).await?;
            match self.follow(seat, Outcome::Joined).await {
                Ok(blob) => return Ok(blob),
                // The other repository's trouble need not be ours.
                Err(_) => boarding = self.flights.board(digest, repository)?,
            }
        }
        match boarding {
            Boarding::Lead(pilot, seat) => {
                let fill = Fill {
                    repository: repository.clone(),
                    digest: *digest,
                    announced: self.manifests.announced(repository, digest),
                    upstream: self.origins.of(repository)?.clone(),
                    store: self.store.clone(),
                    metrics: self.metrics.clone(),
                };
                task::spawn("fill", fill.run(pilot));
                self.follow(seat, Outcome::Miss).await
            }
            Boarding::Join(seat) | Boarding::Elsewhere(seat) => self.follow(seat, Outcome::Joined).await,
        }
    }

    /// How long a blob is, without fetching it.
    ///
    /// # Errors
    /// It does not exist, or is not here and upstream cannot be asked now.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(Option<u64>, Outcome), CacheError> {
        match self.find(repository, digest).await? {
            Found::Readable(blob) => Ok((Some(blob.size()), Outcome::Hit)),
            Found::Unlinked(blob) => {
                self.ask_right(repository, digest).await?;
                Ok((Some(blob.size()), Outcome::Revalidated))
            }
            Found::Nothing => {
                let size = self.origins.of(repository)?.head_blob(&repository.name, digest).await;
                let size = size.map_err(|error| CacheError::from_upstream(&repository.registry, error))?;
                Ok((size.or_else(|| self.manifests.announced(repository, digest)), Outcome::Bypass))
            }
        }
    }

    /// What refers to a manifest. There is always an answer unless the disk fails.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn referrers(&self, repository: &Repository, digest: &Digest) -> Result<ReferrersList, CacheError> {
        self.referrers.list(repository, digest).await
    }

    /// A repository's tags: upstream's list, or what is known here if it cannot be had.
    ///
    /// # Errors
    /// Upstream knows no such repository, or cannot be asked and nothing is known.
    pub async fn tags(
        &self,
        repository: &Repository,
        n: Option<usize>,
        last: Option<&str>,
    ) -> Result<TagList, CacheError> {
        let upstream = self.origins.of(repository)?;
        let error = match timeout(self.settings.first_byte_timeout, upstream.tags(&repository.name, n, last)).await {
            Ok(Ok(page)) => return Ok(TagList { tags: page.tags, more: page.more, outcome: Outcome::Bypass }),
            Ok(Err(error)) => CacheError::from_upstream(&repository.registry, error),
            Err(_elapsed) => CacheError::Late,
        };
        let (store, of) = (self.store.clone(), repository.clone());
        let mut tags = task::blocking(move || store.tags(&of)).await?;
        if tags.is_empty() {
            return Err(error);
        }
        tracing::warn!(%repository, %error, "the tags that are known here are listed instead of upstream's");
        if let Some(last) = last {
            tags.retain(|tag| tag.as_str() > last);
        }
        let more = n.is_some_and(|n| n < tags.len());
        tags.truncate(n.unwrap_or(tags.len()));
        Ok(TagList { tags, more, outcome: Outcome::Stale })
    }

    /// The repositories of which something is here, in byte order.
    pub async fn repositories(&self, after: Option<Repository>, limit: usize) -> Vec<Repository> {
        let index = self.store.index().clone();
        task::blocking(move || index.repositories(after.as_ref(), limit)).await
    }

    fn kept(&self, blob: BlobFile, digest: &Digest, outcome: Outcome) -> Blob {
        self.store.used(digest);
        Blob { size: Some(blob.size()), outcome, source: Source::Kept(blob) }
    }

    async fn find(&self, repository: &Repository, digest: &Digest) -> Result<Found, CacheError> {
        let (store, repository, digest) = (self.store.clone(), repository.clone(), *digest);
        task::blocking(move || {
            let Some(blob) = store.blob(&digest)? else { return Ok(Found::Nothing) };
            let linked = store.link(&repository, &digest)?.is_some();
            Ok(if linked { Found::Readable(blob) } else { Found::Unlinked(blob) })
        })
        .await
    }

    /// Asks upstream whether `repository`'s readers may have a blob, and remembers that they may.
    async fn ask_right(&self, repository: &Repository, digest: &Digest) -> Result<(), CacheError> {
        let upstream = self.origins.of(repository)?.clone();
        let work = || {
            let (store, repository, digest) = (self.store.clone(), repository.clone(), *digest);
            async move {
                let size = upstream.head_blob(&repository.name, &digest).await;
                let size = size.map_err(|error| CacheError::from_upstream(&repository.registry, error))?;
                if let Some(size) = size {
                    task::blocking(move || store.add_link(&repository, &digest, Link::Blob { size })).await?;
                }
                Ok(())
            }
        };
        self.rights.join((repository.clone(), *digest), work).await.0
    }

    /// Waits for a fill's first bytes: until then an honest error is possible, after that only a cut connection.
    async fn follow(&self, mut seat: Seat, outcome: Outcome) -> Result<Blob, CacheError> {
        let first = timeout(self.settings.first_byte_timeout, seat.wait_until(|streaming| streaming.visible > 0)).await;
        let progress = first.unwrap_or_else(|_elapsed| seat.now());
        let size = match progress {
            Progress::Done(blob) => return Ok(Blob { size: Some(blob.size()), outcome, source: Source::Kept(blob) }),
            Progress::Streaming(streaming) => streaming.size,
            Progress::Failed(error) => return Err(error),
            Progress::Waiting => return Err(CacheError::Late),
        };
        let source = Source::Growing { seat, _waiting: Held::new(&self.metrics.fill_waiters) };
        Ok(Blob { size, outcome, source })
    }
}
