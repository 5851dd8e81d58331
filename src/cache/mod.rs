//! The cache: what upstreams have, kept here, and served from here whatever becomes of them.
//!
//! Between `storage` and `upstream`, which do not know each other. Work that several clients wait for belongs to a task
//! and not to the client who asked first; every answer says how it came about ([`Outcome`]).

mod absence;
mod blobs;
mod completeness;
mod completion;
mod error;
mod eviction;
mod fill;
mod gate;
mod intake;
mod inventory;
mod keeping;
mod ledger;
mod manifests;
mod metrics;
mod origin;
mod outcome;
mod parts;
mod pins;
mod prefetch;
mod referrers;
mod room;
mod scrubber;
mod settings;
mod single_flight;
mod stale;
mod tag;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

pub use error::{CacheError, Missing};
pub use fill::{Blob, BlobReader, BrokenStream, FillReport};
pub use intake::{Arriving, Intake};
pub use inventory::{CachedImage, Dropped, Inventory, InventoryError, Which};
pub use ledger::{OnBehalfOf, Spent};
pub use manifests::StoredManifest;
pub use origin::{OnDeleted, Origin};
pub use outcome::Outcome;
pub use pins::{PinError, Pins};
pub use referrers::{Index as ReferrersIndex, ReferrersList};
pub use scrubber::{Pace, ScrubProgress, Scrubber};
pub use settings::{Lifetimes, Settings};
pub use stale::{Reason, Stale};
pub use tag::TagList;

use self::blobs::Blobs;
use self::completeness::Completeness;
use self::completion::Completion;
use self::eviction::{Keeper, Looks};
use self::gate::Gate;
use self::keeping::{Images, Keeping};
use self::ledger::Ledger;
use self::manifests::Manifests;
use self::metrics::Metrics;
use self::origin::Origins;
use self::prefetch::Prefetch;
use self::referrers::Referrers;
use self::room::Rooms;
use self::tag::{TagLists, Tags, recovery};
use crate::clock::Clock;
use crate::oci::{Digest, RangeHeader, Reference, Repository};
use crate::storage::Store;
use crate::task;
use crate::upstream::Report;

/// A manifest, and how it came about.
#[derive(Clone, Debug)]
pub struct ManifestAnswer {
    /// What is served.
    pub manifest: StoredManifest,
    /// Where it comes from.
    pub outcome: Outcome,
    /// Why it may be old, if it may.
    pub stale: Option<Stale>,
    /// Whether a fallback said that the tag means it.
    pub is_fallback: bool,
}

/// What a client who asks for a manifest is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It only wants to know: nothing follows from it.
    Look,
    /// It will ask for what the manifest names.
    Pull,
}

/// Repositories that are looked at in one go for those that may be listed.
const LOOKED_AT: usize = 1000;

/// The mirror's content: `storage` and `upstream` as one.
pub struct Cache {
    store: Store,
    origins: Origins,
    first_byte_timeout: Duration,
    gate: Gate,
    manifests: Manifests,
    blobs: Blobs,
    tags: Tags,
    tag_lists: TagLists,
    referrers: Referrers,
    completeness: Completeness,
    completion: Option<Completion>,
    prefetch: Prefetch,
    scrubber: Scrubber,
    metrics: Metrics,
    ledger: Ledger,
    // What makes room does so for as long as this is here.
    inventory: Inventory,
    keeping: Keeping,
    intake: Intake,
}

impl Cache {
    /// A cache of `origins` in `store`. Neither is asked anything yet.
    pub fn new(
        store: Store,
        origins: Vec<Origin>,
        settings: Settings,
        pins: Pins,
        clock: Clock,
        registry: &prometheus::Registry,
    ) -> Cache {
        let Settings { lifetimes, first_byte_timeout, complete_indexes, scrub } = settings;
        let (metrics, origins, ledger) = (Metrics::new(registry), Origins::new(origins), Ledger::default());
        let (clock, of, counts) = (&clock, || origins.clone(), || metrics.clone());
        let (rooms, requests) = Rooms::new(store.clone());
        let manifests = Manifests::new(store.clone(), of(), counts(), clock.clone(), ledger.clone(), rooms.clone());
        let blobs = Blobs::new(store.clone(), of(), manifests.clone(), counts(), rooms.clone(), first_byte_timeout);
        let tags = Tags::new(store.clone(), of(), manifests.clone(), clock.clone(), lifetimes, counts());
        let completion = complete_indexes
            .then(|| Completion::new(of(), manifests.clone(), blobs.clone(), clock.clone(), lifetimes.negative_ttl));
        origins.all().for_each(|(registry, _)| metrics.expect(registry));
        recovery::watch(&origins, &tags, clock);
        let keeper = Arc::new(Keeper {
            store: store.clone(),
            origins: of(),
            manifests: manifests.clone(),
            tags: tags.downgrade(),
            blobs: blobs.clone(),
            pins: pins.clone(),
            metrics: counts(),
            clock: clock.clone(),
            looks: Looks::begin(),
            turn: Arc::default(),
        });
        eviction::begin(&keeper, requests);
        let scrubber = Scrubber::new(&store, manifests.clone(), blobs.clone(), clock.clone(), counts(), scrub);
        let gate = Gate::new(store.clone(), of(), clock.clone(), lifetimes.negative_ttl);
        let keeping = Keeping {
            store: store.clone(),
            origins: of(),
            tags: tags.clone(),
            gate: gate.clone(),
            pins,
            clock: clock.clone(),
            images: Images {
                store: store.clone(),
                manifests: manifests.clone(),
                blobs: blobs.clone(),
                with_attestations: complete_indexes,
            },
            tag_ttl: lifetimes.tag_ttl,
        };
        let intake = Intake { store: store.clone(), rooms, manifests: manifests.clone(), tags: tags.clone() };
        Cache {
            gate,
            tag_lists: TagLists::new(store.clone(), of()),
            referrers: Referrers::new(store.clone(), of(), manifests.clone(), clock.clone(), settings),
            completeness: Completeness::new(manifests.clone(), blobs.clone(), store.clone(), clock.clone()),
            prefetch: Prefetch::new(of(), blobs.clone()),
            scrubber,
            store,
            origins,
            first_byte_timeout,
            manifests,
            blobs,
            tags,
            completion,
            metrics,
            ledger,
            inventory: Inventory::new(keeper),
            keeping,
            intake,
        }
    }

    /// What looks after what is at rest.
    pub fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }

    /// Keeps what is pinned fresh and whole, for as long as it is polled. Only of repositories that `is_mirrored` lets
    /// clients pull from upstream is anything asked.
    pub fn keep_pinned(
        &self,
        is_mirrored: impl Fn(&Repository) -> bool + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.keeping.clone().work(is_mirrored)
    }

    /// What is cached, as images.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// What takes content that does not come from its upstream.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// The store below, for listings and figures.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How the upstreams are, in the order of their names.
    pub fn upstreams(&self) -> Vec<Report> {
        let mut reports: Vec<Report> = self.origins.all().map(|(_, origin)| origin.upstream.report()).collect();
        reports.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// The blobs that are being fetched now.
    pub fn fills(&self) -> Vec<FillReport> {
        self.blobs.fills()
    }

    /// What the rate limits were spent on lately, the latest first.
    pub fn spent(&self) -> Vec<Spent> {
        self.ledger.entries()
    }

    /// The manifest that `reference` means in `repository`.
    ///
    /// # Errors
    /// It does not exist, is not for everyone, or cannot be had now; or it is here, upstream is out of order, and
    /// something that it needs is not here.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        purpose: Purpose,
        on_behalf_of: OnBehalfOf,
    ) -> Result<ManifestAnswer, CacheError> {
        let answer = self.in_time(self.find_manifest(repository, reference, on_behalf_of)).await?;
        if matches!(answer.outcome, Outcome::Miss | Outcome::Joined | Outcome::Revalidated) {
            self.gate.given(repository).await;
        }
        if purpose == Purpose::Pull {
            self.prefetch.pulled(repository, &answer.manifest);
        }
        if let Some(completion) = &self.completion {
            completion.served(repository, &answer.manifest);
        }
        Ok(answer)
    }

    async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        on_behalf_of: OnBehalfOf,
    ) -> Result<ManifestAnswer, CacheError> {
        self.gate.admit(repository).await?;
        let (answer, has_just_failed) = match reference {
            Reference::Digest(digest) => {
                let (manifest, outcome) = self.manifests.get(repository, digest, on_behalf_of).await?;
                (ManifestAnswer { manifest, outcome, stale: None, is_fallback: false }, false)
            }
            Reference::Tag(tag) => {
                let tag = self.tags.resolve(repository, tag, on_behalf_of).await?;
                let found = self.manifests.get(repository, &tag.digest, on_behalf_of).await;
                let (manifest, _) = found.inspect_err(|error| {
                    if error.is_outage() {
                        self.metrics.incomplete(Missing::Manifest);
                    }
                })?;
                let (outcome, stale, is_fallback) = (tag.outcome, tag.stale, tag.is_fallback);
                (ManifestAnswer { manifest, outcome, stale, is_fallback }, tag.has_just_failed)
            }
        };
        let upstream = self.origins.of(repository)?;
        // A failed question alone may be the registry's own trouble, with its fallbacks as well as ever.
        if (upstream.is_down() || (has_just_failed && !upstream.has_fallbacks()))
            && let Some(missing) = Box::pin(self.completeness.missing(repository, &answer.manifest)).await?
        {
            self.metrics.incomplete(missing);
            return Err(CacheError::Incomplete { registry: repository.registry.clone(), missing });
        }
        Ok(answer)
    }

    /// A blob, complete or while it is fetched, of which a part may be all that is wanted.
    ///
    /// # Errors
    /// It does not exist, is not for everyone, or is not here and cannot be fetched now.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        part: Option<RangeHeader>,
    ) -> Result<Blob, CacheError> {
        self.in_time(self.gate.admit(repository)).await?;
        match part {
            Some(wanted) => self.blobs.part(repository, digest, wanted).await,
            None => self.blobs.get(repository, digest).await,
        }
    }

    /// How long a blob is, without fetching it.
    ///
    /// # Errors
    /// It does not exist, is not for everyone, or is not here and upstream cannot be asked now.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(Option<u64>, Outcome), CacheError> {
        self.in_time(async {
            self.gate.admit(repository).await?;
            self.blobs.size(repository, digest).await
        })
        .await
    }

    /// What refers to a manifest. There is always an answer, for Docker fails a pull without one (protocol.md 3.5): where
    /// it is not known whether the repository is for everyone, an empty list, which gives nothing away.
    ///
    /// # Errors
    /// The repository is not for everyone, or the disk fails.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        on_behalf_of: OnBehalfOf,
    ) -> Result<ReferrersList, CacheError> {
        match self.in_time(self.gate.admit(repository)).await {
            Ok(()) => self.referrers.list(repository, digest, on_behalf_of).await,
            Err(error @ (CacheError::Private { .. } | CacheError::Storage(_) | CacheError::NotMirrored(_))) => {
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%repository, %error, "an empty list of referrers is given");
                Ok(ReferrersList::empty(&repository.registry))
            }
        }
    }

    /// A repository's tags: upstream's list, or what is known here if it cannot be had.
    ///
    /// # Errors
    /// Upstream knows no such repository, it is not for everyone, or upstream cannot be asked and nothing is known.
    pub async fn tags(
        &self,
        repository: &Repository,
        n: Option<usize>,
        last: Option<&str>,
    ) -> Result<TagList, CacheError> {
        self.in_time(self.gate.admit(repository)).await?;
        let page = self.in_time(self.tag_lists.ask(repository, n, last)).await;
        match page {
            Ok(page) => Ok(page),
            Err(error) => self.tag_lists.known(repository, n, last, error).await,
        }
    }

    /// No client waits longer for the head of an answer; some have no limit of their own (protocol.md, rule 9). Blobs bound
    /// themselves, for once their first byte is there the rest takes as long as it takes.
    fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, CacheError>>,
    ) -> impl Future<Output = Result<T, CacheError>> {
        // An async function would hold the work twice: as it was given, and as it is waited for.
        timeout(self.first_byte_timeout, work).map(|done| done.unwrap_or(Err(CacheError::Late)))
    }

    /// The repositories of which something is here that is for everyone, in byte order.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn repositories(
        &self,
        mut after: Option<Repository>,
        limit: usize,
    ) -> Result<Vec<Repository>, CacheError> {
        let mut listed = Vec::new();
        loop {
            let (index, from) = (self.store.index().clone(), after.take());
            let some = task::blocking(move || index.repositories(from.as_ref(), LOOKED_AT)).await;
            let is_last = some.len() < LOOKED_AT;
            after = some.last().cloned();
            for repository in some {
                if listed.len() < limit && self.gate.is_listed(&repository).await? {
                    listed.push(repository);
                }
            }
            if is_last || listed.len() >= limit {
                return Ok(listed);
            }
        }
    }
}
