//! The cache: what upstreams have, kept here, and served from here whatever becomes of them.
//!
//! Between `storage` and `upstream`, which do not know each other. Work that several clients wait for belongs to a task
//! and not to the client who asked first; every answer says how it came about ([`Outcome`]).

mod blob_stream;
mod blobs;
mod completion;
mod error;
mod fill;
mod flight;
mod manifests;
mod metrics;
mod origin;
mod outcome;
mod part;
mod prefetch;
mod referrers;
mod settings;
mod single_flight;
mod tags;

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

pub use blob_stream::{Blob, BlobReader, BrokenStream};
pub use error::CacheError;
pub use manifests::StoredManifest;
pub use outcome::Outcome;
pub use referrers::{Index as ReferrersIndex, ReferrersList};
pub use settings::{Lifetimes, Settings};

use self::blobs::Blobs;
use self::completion::Completion;
use self::manifests::Manifests;
use self::metrics::Metrics;
use self::origin::Origins;
use self::prefetch::Prefetch;
use self::referrers::Referrers;
use self::tags::Tags;
use crate::clock::Clock;
use crate::oci::{Digest, RangeHeader, Reference, Repository, Tag};
use crate::storage::Store;
use crate::task;
use crate::upstream::Upstream;

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

/// What a client who asks for a manifest is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It only wants to know: nothing follows from it.
    Look,
    /// It will ask for what the manifest names.
    Pull,
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
    first_byte_timeout: Duration,
    manifests: Manifests,
    blobs: Blobs,
    tags: Tags,
    referrers: Referrers,
    completion: Option<Completion>,
    prefetch: Prefetch,
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
        let Settings { lifetimes, first_byte_timeout, complete_indexes } = settings;
        let (metrics, origins) = (Metrics::new(registry), Origins::new(upstreams));
        let manifests = Manifests::new(store.clone(), origins.clone(), metrics.clone());
        let blobs = Blobs::new(store.clone(), origins.clone(), manifests.clone(), metrics, first_byte_timeout);
        let tags = Tags::new(store.clone(), manifests.clone(), clock.clone(), lifetimes);
        let referrers = Referrers::new(store.clone(), origins.clone(), manifests.clone(), clock.clone(), settings);
        let completion =
            complete_indexes.then(|| Completion::new(manifests.clone(), blobs.clone(), clock, lifetimes.negative_ttl));
        let prefetch = Prefetch::new(blobs.clone());
        Cache { store, origins, first_byte_timeout, manifests, blobs, tags, referrers, completion, prefetch }
    }

    /// The store below, for listings and figures.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The manifest that `reference` means in `repository`.
    ///
    /// # Errors
    /// It does not exist, or is not here and cannot be fetched now.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<ManifestAnswer, CacheError> {
        let find = async {
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
        };
        let answer = self.in_time(find).await?;
        if purpose == Purpose::Pull {
            self.prefetch.pulled(repository, &answer.manifest);
        }
        if let Some(completion) = &self.completion {
            completion.served(repository, &answer.manifest);
        }
        Ok(answer)
    }

    /// A blob, complete or while it is fetched, of which a part may be all that is wanted.
    ///
    /// # Errors
    /// It does not exist, or is not here and cannot be fetched now.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        part: Option<RangeHeader>,
    ) -> Result<Blob, CacheError> {
        match part {
            Some(wanted) => self.blobs.part(repository, digest, wanted).await,
            None => self.blobs.get(repository, digest).await,
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
        self.in_time(self.blobs.size(repository, digest)).await
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
        let ask = async {
            let page = upstream.tags(&repository.name, n, last).await;
            page.map_err(|error| CacheError::from_upstream(&repository.registry, error))
        };
        let error = match self.in_time(ask).await {
            Ok(page) => return Ok(TagList { tags: page.tags, more: page.more, outcome: Outcome::Bypass }),
            Err(error) => error,
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

    /// No client waits longer for the head of an answer; some have no limit of their own (protocol.md, rule 9). Blobs bound
    /// themselves, for once their first byte is there the rest takes as long as it takes.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, CacheError>>) -> Result<T, CacheError> {
        timeout(self.first_byte_timeout, work).await.unwrap_or(Err(CacheError::Late))
    }

    /// The repositories of which something is here, in byte order.
    pub async fn repositories(&self, after: Option<Repository>, limit: usize) -> Vec<Repository> {
        let index = self.store.index().clone();
        task::blocking(move || index.repositories(after.as_ref(), limit)).await
    }
}
