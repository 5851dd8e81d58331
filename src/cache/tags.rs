//! What tags mean: dated answers, confirmed by upstream when they are old, kept when upstream fails.
//!
//! A tag moves only after the manifest that it moves to is here, so that a failure in between leaves the old image
//! whole. A copy at hand bounds every wait; nothing in here takes a tag away.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::error::CacheError;
use super::manifests::Manifests;
use super::outcome::Outcome;
use super::settings::Lifetimes;
use super::single_flight::{Role, SingleFlight};
use crate::clock::Clock;
use crate::oci::{Digest, Repository, Tag};
use crate::storage::Store;
use crate::task;

/// Tags kept in memory; each is small. The rest is read from its file again.
const MAX_TAGS: u64 = 100_000;
/// Absences remembered; each costs one question when it is forgotten.
const MAX_ABSENCES: u64 = 10_000;

type Key = (Repository, Tag);

/// What a tag is taken to mean, and why.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifest.
    pub digest: Digest,
    /// How it was found.
    pub outcome: Outcome,
    /// If stale: for how long upstream has not confirmed it.
    pub age: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    digest: Digest,
    // `None`: longer ago than this process remembers.
    confirmed: Option<Instant>,
    confirmed_at: u64,
    failed: Option<Instant>,
}

/// What is remembered of questions that were asked.
#[derive(Clone)]
struct Memory {
    clock: Clock,
    known: moka::sync::Cache<Key, Known>,
    absent: moka::sync::Cache<Key, Instant>,
}

/// The tags of all cached repositories.
pub struct Tags {
    store: Store,
    manifests: Manifests,
    lifetimes: Lifetimes,
    memory: Memory,
    questions: SingleFlight<Key, Digest>,
}

impl Tags {
    /// Tags over `store`, asked about through `manifests`.
    pub fn new(store: Store, manifests: Manifests, clock: Clock, lifetimes: Lifetimes) -> Tags {
        let (known, absent) = (moka::sync::Cache::new(MAX_TAGS), moka::sync::Cache::new(MAX_ABSENCES));
        let memory = Memory { clock, known, absent };
        Tags { store, manifests, lifetimes, memory, questions: SingleFlight::new("tag") }
    }

    /// What `tag` means now, as far as can be known in time.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Resolved, CacheError> {
        let key = (repository.clone(), tag.clone());
        match self.recall(&key).await? {
            None => self.learn(key).await,
            Some(known) if self.memory.is_within(known.confirmed, self.lifetimes.tag_ttl) => {
                Ok(Resolved { digest: known.digest, outcome: Outcome::Hit, age: None })
            }
            Some(known) if self.memory.is_within(known.failed, self.lifetimes.negative_ttl) => {
                Ok(self.memory.stale(&known))
            }
            Some(known) => Ok(self.confirm(key, known).await),
        }
    }

    /// No copy at hand: the answer is upstream's, or none.
    async fn learn(&self, key: Key) -> Result<Resolved, CacheError> {
        if self.memory.is_within(self.memory.absent.get(&key), self.lifetimes.negative_ttl) {
            return Err(CacheError::Absent { registry: key.0.registry });
        }
        let (answer, role) = self.ask(&key, None).await;
        let outcome = if role == Role::Led { Outcome::Miss } else { Outcome::Joined };
        Ok(Resolved { digest: answer?, outcome, age: None })
    }

    /// A copy at hand: upstream has `revalidate_timeout` to say that it is still right. The question goes on after that,
    /// for whoever comes next.
    async fn confirm(&self, key: Key, known: Known) -> Resolved {
        let answer = timeout(self.lifetimes.revalidate_timeout, self.ask(&key, Some(known.digest))).await;
        let reason = match answer {
            Ok((Ok(digest), _)) => return Resolved { digest, outcome: Outcome::Revalidated, age: None },
            Ok((Err(error), _)) => error.to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        tracing::warn!(repository = %key.0, tag = %key.1, reason, "a tag is served stale");
        self.memory.failed(key, known);
        self.memory.stale(&known)
    }

    async fn ask(&self, key: &Key, at_hand: Option<Digest>) -> (Result<Digest, CacheError>, Role) {
        let work = || {
            let (manifests, store) = (self.manifests.clone(), self.store.clone());
            let (memory, key) = (self.memory.clone(), key.clone());
            async move {
                let answer = manifests.resolve(&key.0, &key.1, at_hand).await;
                match answer {
                    Ok(digest) => {
                        let (repository, tag) = key.clone();
                        if let Err(error) = task::blocking(move || store.set_tag(&repository, &tag, &digest)).await {
                            tracing::error!(repository = %key.0, tag = %key.1, %error, "a tag is served without being kept");
                        }
                        memory.confirmed(key, digest);
                    }
                    Err(ref error) if error.is_absence() && at_hand.is_none() => memory.absent(key),
                    Err(_) => {}
                }
                answer
            }
        };
        self.questions.join(key.clone(), work).await
    }

    async fn recall(&self, key: &Key) -> Result<Option<Known>, CacheError> {
        if let Some(known) = self.memory.known.get(key) {
            return Ok(Some(known));
        }
        let (store, (repository, tag)) = (self.store.clone(), key.clone());
        let found = task::blocking(move || {
            let record = store.tag(&repository, &tag)?;
            Ok::<_, CacheError>(record.map(|record| {
                (record.digest, store.tag_checked(&repository, &tag).unwrap_or(record.at).max(record.at))
            }))
        })
        .await?;
        let Some((digest, at)) = found else { return Ok(None) };
        // A wall clock that was set back makes an answer old, never younger than it is.
        let age = self.memory.clock.unix_seconds().checked_sub(at).map(Duration::from_secs);
        let confirmed = age.and_then(|age| self.memory.clock.tick().checked_sub(age));
        let known = Known { digest, confirmed, confirmed_at: at, failed: None };
        self.memory.known.insert(key.clone(), known);
        Ok(Some(known))
    }
}

impl Memory {
    fn confirmed(&self, key: Key, digest: Digest) {
        let (confirmed, confirmed_at) = (Some(self.clock.tick()), self.clock.unix_seconds());
        self.absent.invalidate(&key);
        self.known.insert(key, Known { digest, confirmed, confirmed_at, failed: None });
    }

    fn absent(&self, key: Key) {
        self.absent.insert(key, self.clock.tick());
    }

    /// Unless the answer came in the meantime.
    fn failed(&self, key: Key, known: Known) {
        if self.known.get(&key).is_none_or(|now| now.confirmed == known.confirmed) {
            self.known.insert(key, Known { failed: Some(self.clock.tick()), ..known });
        }
    }

    fn stale(&self, known: &Known) -> Resolved {
        let age = self.clock.unix_seconds().saturating_sub(known.confirmed_at);
        Resolved { digest: known.digest, outcome: Outcome::Stale, age: Some(Duration::from_secs(age)) }
    }

    fn is_within(&self, since: Option<Instant>, lifetime: Duration) -> bool {
        since.is_some_and(|since| self.clock.tick().saturating_duration_since(since) < lifetime)
    }
}
