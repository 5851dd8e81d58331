//! What tags mean: dated answers, confirmed by upstream when they are old, kept when upstream fails.
//!
//! A tag moves only after the manifest that it moves to is here, so that a failure in between leaves the old image
//! whole. A copy at hand bounds every wait, and while upstream is out of order there is no wait at all. A tag goes only if
//! its registry, being well, says twice that it is gone, and the operator wants it so.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout;

use super::backlog::Backlog;
use super::memory::{Key, Known, TagMemory};
use crate::cache::absence::{self, Absence};
use crate::cache::error::CacheError;
use crate::cache::ledger::OnBehalfOf;
use crate::cache::manifests::{Manifests, Meaning};
use crate::cache::metrics::Metrics;
use crate::cache::origin::{OnDeleted, Origin, Origins};
use crate::cache::outcome::Outcome;
use crate::cache::settings::Lifetimes;
use crate::cache::single_flight::{Role, SingleFlight};
use crate::cache::stale::{Reason, Stale};
use crate::clock::Clock;
use crate::oci::{Digest, Repository, Tag};
use crate::storage::{AbsentRecord, StorageError, Store, TagRecord};
use crate::task;
use crate::upstream::Reach;

/// What a tag is taken to mean, and why.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifest.
    pub digest: Digest,
    /// How it was found.
    pub outcome: Outcome,
    /// Why it may be old, if it may.
    pub stale: Option<Stale>,
    /// Whether a fallback said so.
    pub is_fallback: bool,
    /// Whether upstream was asked just now and found to be out of order.
    pub has_just_failed: bool,
}

/// The tags of all cached repositories. Clones share them.
#[derive(Clone)]
pub struct Tags {
    inner: Arc<Inner>,
}

/// What a question needs, whoever began it and whether or not they are still there.
pub struct Inner {
    store: Store,
    origins: Origins,
    manifests: Manifests,
    lifetimes: Lifetimes,
    clock: Clock,
    memory: TagMemory,
    backlog: Arc<Backlog>,
    metrics: Metrics,
    questions: SingleFlight<Key, Meaning>,
}

impl Tags {
    /// Tags over `store`, asked about through `manifests`.
    pub fn new(
        store: Store,
        origins: Origins,
        manifests: Manifests,
        clock: Clock,
        lifetimes: Lifetimes,
        metrics: Metrics,
    ) -> Tags {
        let (memory, questions) = (TagMemory::new(clock.clone(), lifetimes), SingleFlight::new("tag"));
        let backlog = Arc::default();
        Tags {
            inner: Arc::new(Inner { store, origins, manifests, lifetimes, clock, memory, backlog, metrics, questions }),
        }
    }

    /// The tags that wait for the end of an outage.
    pub fn backlog(&self) -> Arc<Backlog> {
        self.inner.backlog.clone()
    }

    /// These tags, for whoever must not keep them.
    pub fn downgrade(&self) -> WeakTags {
        WeakTags(Arc::downgrade(&self.inner))
    }

    /// What `tag` means now, as far as can be known in time.
    pub async fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
        on_behalf_of: OnBehalfOf,
    ) -> Result<Resolved, CacheError> {
        let (inner, key) = (&self.inner, (repository.clone(), tag.clone()));
        let origin = inner.origins.origin(repository)?;
        let Some(known) = inner.recall(&key).await? else {
            return Box::pin(self.learn(key, on_behalf_of)).await;
        };
        if inner.memory.is_fresh(&known) {
            let Known { digest, is_fallback, .. } = known;
            return Ok(Resolved { digest, outcome: Outcome::Hit, stale: None, is_fallback, has_just_failed: false });
        }
        match inner.reason_not_to_ask(&key, &known, origin) {
            Some(reason) => Ok(inner.stale(&key, &known, reason, origin)),
            None => Box::pin(self.confirm(key, known, origin, on_behalf_of)).await,
        }
    }

    /// What was remembered of a tag is forgotten: it was taken away, or was given another meaning.
    pub fn forget(&self, repository: &Repository, tag: &Tag) {
        self.inner.memory.forget(&(repository.clone(), tag.clone()));
    }

    /// Whether a tag would be served now although upstream does not confirm it. Asks nobody; may read the tag's file.
    pub fn is_stale(&self, repository: &Repository, tag: &Tag) -> bool {
        let (inner, key) = (&self.inner, (repository.clone(), tag.clone()));
        let known = inner.memory.get(&key).or_else(|| inner.read(&key).ok().flatten());
        let Some((known, origin)) = known.zip(inner.origins.origin(repository).ok()) else { return false };
        let may_not_ask = !origin.has_time_for_us() || known.absence.is_some() || inner.is_held(&key, &known);
        !inner.memory.is_fresh(&known) && may_not_ask
    }

    /// Whether a tag may be asked about although no client waits for it.
    pub fn can_be_asked(&self, key: &Key) -> bool {
        self.inner.origins.origin(&key.0).is_ok_and(Origin::has_time_for_us)
    }

    /// What a tag is taken to mean, and whether it is time to ask about it. Asks nobody.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn known(&self, key: &Key) -> Result<Option<(Digest, bool)>, CacheError> {
        let inner = &self.inner;
        let known = inner.recall(key).await?;
        Ok(known.map(|known| (known.digest, !inner.memory.is_fresh(&known) && !inner.is_held(key, &known))))
    }

    /// Asks about a tag, without anyone waiting for it: it moves if upstream says so. One that is not here is not asked about.
    ///
    /// # Errors
    /// Upstream does not have it, or cannot be asked now.
    pub async fn refresh(&self, key: &Key, on_behalf_of: OnBehalfOf) -> Result<(), CacheError> {
        match self.inner.recall(key).await? {
            Some(known) => self.ask(key, Some(known), on_behalf_of).await.0.map(|_meaning| ()),
            None => Ok(()),
        }
    }

    /// The same of a tag that is not here.
    ///
    /// # Errors
    /// Upstream does not have it, or cannot be asked now.
    pub async fn fetch(&self, key: &Key, on_behalf_of: OnBehalfOf) -> Result<Digest, CacheError> {
        self.ask(key, None, on_behalf_of).await.0.map(|meaning| meaning.digest)
    }

    /// Asks about a tag that is here without moving it: it is confirmed, or what it means now is returned.
    ///
    /// # Errors
    /// Upstream does not have it, or cannot be asked now.
    pub async fn look(&self, key: &Key, on_behalf_of: OnBehalfOf) -> Result<Option<Digest>, CacheError> {
        let Some(known) = self.inner.recall(key).await? else { return Ok(None) };
        let asked = self.inner.clock.tick();
        let answer = self.inner.manifests.meaning(&key.0, &key.1, Reach::Registry, on_behalf_of).await;
        match answer {
            Ok(meaning) if meaning.digest != known.digest => Ok(Some(meaning.digest)),
            answer => {
                self.inner.learnt(key, Some(known), &answer, asked).await;
                answer.map(|_meaning| None)
            }
        }
    }

    /// No copy at hand: the answer is upstream's, or none.
    async fn learn(&self, key: Key, on_behalf_of: OnBehalfOf) -> Result<Resolved, CacheError> {
        if self.inner.memory.is_absent(&key) {
            return Err(CacheError::Absent { registry: key.0.registry });
        }
        let (answer, role) = self.ask(&key, None, on_behalf_of).await;
        let outcome = if role == Role::Led { Outcome::Miss } else { Outcome::Joined };
        let Meaning { digest, is_fallback } = answer?;
        Ok(Resolved { digest, outcome, stale: None, is_fallback, has_just_failed: false })
    }

    /// A copy at hand: upstream has `revalidate_timeout` to say that it is still right. The question goes on after that,
    /// for whoever comes next.
    async fn confirm(
        &self,
        key: Key,
        known: Known,
        origin: &Origin,
        on_behalf_of: OnBehalfOf,
    ) -> Result<Resolved, CacheError> {
        let (inner, patience) = (&self.inner, self.inner.lifetimes.revalidate_timeout);
        let (reason, said) = match timeout(patience, self.ask(&key, Some(known), on_behalf_of)).await {
            Ok((Ok(Meaning { digest, is_fallback }), _)) => {
                let outcome = Outcome::Revalidated;
                return Ok(Resolved { digest, outcome, stale: None, is_fallback, has_just_failed: false });
            }
            Ok((Err(error), _)) if error.is_absence() => match inner.recall(&key).await? {
                Some(now) => (missing(now.absence), error.to_string()),
                // It was dropped.
                None => return Err(error),
            },
            Ok((Err(error), _)) => (Reason::of(&error), error.to_string()),
            Err(_elapsed) => {
                origin.upstream.lost_patience(patience);
                inner.memory.fail(&key, &known, Reason::NoAnswer);
                (Reason::NoAnswer, "no answer in time".to_owned())
            }
        };
        tracing::warn!(repository = %key.0, tag = %key.1, reason = said, "a tag is served stale");
        Ok(Resolved { has_just_failed: reason.is_outage(), ..inner.stale(&key, &known, reason, origin) })
    }

    async fn ask(
        &self,
        key: &Key,
        known: Option<Known>,
        on_behalf_of: OnBehalfOf,
    ) -> (Result<Meaning, CacheError>, Role) {
        let work = || {
            let (inner, key) = (self.inner.clone(), key.clone());
            async move {
                let (asked, at_hand) = (inner.clock.tick(), known.map(|known| known.digest));
                let answer = inner.manifests.resolve(&key.0, &key.1, at_hand, on_behalf_of).await;
                inner.learnt(&key, known, &answer, asked).await;
                answer
            }
        };
        self.inner.questions.join(key.clone(), work).await
    }
}

/// Tags that are gone when nobody else keeps them.
#[derive(Clone)]
pub struct WeakTags(std::sync::Weak<Inner>);

impl WeakTags {
    /// The tags, if they are still there.
    pub fn upgrade(&self) -> Option<Tags> {
        self.0.upgrade().map(|inner| Tags { inner })
    }
}

impl Inner {
    /// Why a tag is served as it is although it is old.
    fn reason_not_to_ask(&self, key: &Key, known: &Known, origin: &Origin) -> Option<Reason> {
        if origin.upstream.is_down() {
            origin.note_trouble(self.clock.tick());
            return Some(Reason::OutOfOrder(origin.upstream.down_since()));
        }
        if self.backlog.is_queued(key) {
            return Some(Reason::Queued);
        }
        if !origin.upstream.has_budget_to_spare() {
            return Some(Reason::Budget);
        }
        self.memory.held_by(known)
    }

    /// Whether a tag waits for its turn after an outage, or was asked about in vain just now.
    fn is_held(&self, key: &Key, known: &Known) -> bool {
        self.backlog.is_queued(key) || self.memory.held_by(known).is_some()
    }

    fn stale(&self, key: &Key, known: &Known, reason: Reason, origin: &Origin) -> Resolved {
        if reason.is_outage() {
            origin.upstream.served_stale();
        }
        if reason.is_outage() && reason != Reason::Queued {
            self.backlog.note(key, known.confirmed_at);
        }
        let Known { digest, is_fallback, .. } = *known;
        let stale = Some(self.memory.stale(key, known, reason));
        Resolved { digest, outcome: Outcome::Stale, stale, is_fallback, has_just_failed: false }
    }

    /// Draws the consequences of an answer to what was asked at that moment, once, however many wait for it.
    async fn learnt(&self, key: &Key, known: Option<Known>, answer: &Result<Meaning, CacheError>, asked: Instant) {
        let Ok(origin) = self.origins.origin(&key.0) else { return };
        if answer.as_ref().is_err_and(CacheError::is_outage) {
            origin.note_trouble(self.clock.tick());
        }
        // What was asked later was answered sooner, and is known already.
        if self.memory.get(key).is_some_and(|now| now.is_newer_than(asked)) {
            return;
        }
        match (answer, known) {
            (Ok(Meaning { digest, is_fallback }), _) => self.confirmed(key, *digest, *is_fallback, asked).await,
            (Err(error), None) if error.is_absence() => self.memory.note_absent(key.clone()),
            (Err(error), Some(known)) if error.is_absence() => self.missed(key, &known, origin).await,
            (Err(error), Some(known)) => self.memory.fail(key, &known, Reason::of(error)),
            (Err(_), None) => {}
        }
    }

    async fn confirmed(&self, key: &Key, digest: Digest, is_fallback: bool, asked: Instant) {
        if is_fallback {
            self.metrics.fallback_tag(&key.0.registry);
        }
        self.keeping(key, move |store, (repository, tag)| store.set_tag(repository, tag, &digest, is_fallback)).await;
        self.memory.confirm(key.clone(), digest, is_fallback, asked);
        self.backlog.remove(key);
    }

    /// The registry says that it does not have what is here.
    async fn missed(&self, key: &Key, known: &Known, origin: &Origin) {
        let before = known.absence;
        let now = absence::said(before, self.clock.tick(), self.clock.unix_seconds(), origin.health());
        self.backlog.remove(key);
        if let Some(absence) = now.filter(|_| now != before) {
            let record = AbsentRecord { since: absence.since, is_gone: absence.is_gone };
            if absence.is_gone {
                let is_dropped = origin.on_deleted == OnDeleted::Drop;
                let action = if is_dropped { "dropped" } else { "kept" };
                tracing::warn!(repository = %key.0, tag = %key.1, action, "a tag that is cached here is gone upstream");
                self.metrics.tag_gone(&key.0.registry, action);
                if is_dropped {
                    self.keeping(key, |store, (repository, tag)| store.remove_tag(repository, tag)).await;
                    return self.memory.note_absent(key.clone());
                }
            }
            self.keeping(key, move |store, (repository, tag)| store.set_absent(repository, tag, record)).await;
        }
        self.memory.miss(key, known, now, missing(now));
    }

    /// A disk that fails is no reason to keep an answer from who waits for it.
    async fn keeping(&self, key: &Key, change: impl FnOnce(&Store, &Key) -> Result<(), StorageError> + Send + 'static) {
        let (store, of) = (self.store.clone(), key.clone());
        if let Err(error) = task::blocking(move || change(&store, &of)).await {
            tracing::error!(repository = %key.0, tag = %key.1, %error, "what was learnt of a tag is not kept on disk");
        }
    }

    async fn recall(&self, key: &Key) -> Result<Option<Known>, CacheError> {
        if let Some(known) = self.memory.get(key) {
            return Ok(Some(known));
        }
        let (store, of) = (self.store.clone(), key.clone());
        let found = task::blocking(move || read(&store, &of)).await?;
        Ok(found.map(|(record, checked)| self.memory.read(key, record, checked)))
    }

    /// The same without waiting: blocks on the disk.
    fn read(&self, key: &Key) -> Result<Option<Known>, StorageError> {
        Ok(read(&self.store, key)?.map(|(record, checked)| self.memory.read(key, record, checked)))
    }
}

/// What stands in a tag's file, and when upstream last confirmed that.
fn read(store: &Store, (repository, tag): &Key) -> Result<Option<(TagRecord, u64)>, StorageError> {
    let record = store.tag(repository, tag)?;
    Ok(record.map(|record| (record, store.tag_checked(repository, tag).unwrap_or(record.at).max(record.at))))
}

/// What is said of a tag whose registry says that it has none.
fn missing(absence: Option<Absence>) -> Reason {
    match absence {
        Some(absence) if absence.is_gone => Reason::Gone(absence.since),
        _ => Reason::Missing,
    }
}
