//! Which repositories are for everyone. An account at an upstream is there for its rate limit: what only the account can
//! read is not handed to clients, whom nobody has asked who they are.
//!
//! Asked once per repository without the account, remembered in a file beside its tags and in memory, and asked again
//! behind the clients' backs when that is a day old. What is not known is not served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::CacheError;
use super::origin::{Origin, Origins};
use super::single_flight::SingleFlight;
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::Repository;
use crate::storage::Store;
use crate::task;
use crate::upstream::UpstreamError;

/// Repositories remembered in memory; the rest is read from its file again.
const MAX_REMEMBERED: u64 = 100_000;
/// How long it is believed that a repository is for everyone before that is asked again.
const BELIEVED: Duration = Duration::from_secs(24 * 3600);

/// What is known of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Public,
    NotPublic,
    // There is none. Not written down.
    Absent,
    // Nothing. Not written down.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    verdict: Verdict,
    // `None`: longer ago than this process remembers.
    at: Option<Instant>,
}

/// Decides for every path that leads to content. Clones share what is remembered.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    origins: Origins,
    clock: Clock,
    denied_for: Duration,
    learnt: Memory<Repository, Learnt>,
    questions: SingleFlight<Repository, Verdict>,
}

impl Gate {
    /// Asks `origins`. That a repository is not for everyone is believed for `denied_for`.
    pub fn new(store: Store, origins: Origins, clock: Clock, denied_for: Duration) -> Gate {
        let (learnt, questions) = (memory::of_entries(MAX_REMEMBERED), SingleFlight::new("gate"));
        Gate { inner: Arc::new(Inner { store, origins, clock, denied_for, learnt, questions }) }
    }

    /// Whether content of `repository` may be given to whoever asks.
    ///
    /// # Errors
    /// It may not, or that is not known and cannot be learnt now.
    pub async fn admit(&self, repository: &Repository) -> Result<(), CacheError> {
        let origin = self.inner.origins.origin(repository)?;
        if origin.is_private(&repository.name) {
            return Ok(());
        }
        let Learnt { verdict, at } = self.inner.recall(repository).await?;
        let verdict = match verdict {
            Verdict::Public => {
                if origin.upstream.has_account() && !self.inner.is_within(at, BELIEVED) && !origin.upstream.is_down() {
                    self.ask_again(repository);
                }
                Verdict::Public
            }
            // What anyone is given, anyone may have.
            Verdict::Unknown if !origin.upstream.has_account() => Verdict::Public,
            Verdict::NotPublic | Verdict::Absent if self.inner.is_within(at, self.inner.denied_for) => verdict,
            // In an outage the last answer holds.
            Verdict::NotPublic => Box::pin(self.ask(repository)).await.unwrap_or(verdict),
            Verdict::Absent | Verdict::Unknown => Box::pin(self.ask(repository)).await?,
        };
        match verdict {
            Verdict::Public => Ok(()),
            Verdict::Absent => Err(CacheError::Absent { registry: repository.registry.clone() }),
            Verdict::NotPublic | Verdict::Unknown => Err(CacheError::Private { repository: repository.clone() }),
        }
    }

    /// Notes that upstream has just given something of `repository`: if it does not know who asks, that is for everyone,
    /// also on the day on which there is an account and no upstream to ask.
    pub async fn given(&self, repository: &Repository) {
        let inner = &self.inner;
        let Ok(origin) = inner.origins.origin(repository) else { return };
        let learnt = inner.recall(repository).await;
        if !origin.upstream.has_account() && learnt.is_ok_and(|learnt| learnt.verdict == Verdict::Unknown) {
            inner.remember(repository, Verdict::Public).await;
        }
    }

    /// Whether `repository` may be listed: nobody is asked for it.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn is_listed(&self, repository: &Repository) -> Result<bool, CacheError> {
        let Ok(origin) = self.inner.origins.origin(repository) else { return Ok(false) };
        if origin.is_private(&repository.name) {
            return Ok(true);
        }
        Ok(match self.inner.recall(repository).await?.verdict {
            Verdict::Public => true,
            Verdict::Unknown => !origin.upstream.has_account(),
            Verdict::NotPublic | Verdict::Absent => false,
        })
    }

    async fn ask(&self, repository: &Repository) -> Result<Verdict, CacheError> {
        let work = || {
            let (inner, repository) = (self.inner.clone(), repository.clone());
            async move { inner.ask(&repository).await }
        };
        self.inner.questions.join(repository.clone(), work).await.0
    }

    fn ask_again(&self, repository: &Repository) {
        let (this, repository) = (self.clone(), repository.clone());
        // Before the answer, so that one failure is not asked about by every client.
        let asked = Learnt { verdict: Verdict::Public, at: Some(self.inner.clock.tick()) };
        self.inner.learnt.insert(repository.clone(), asked);
        task::spawn("gate", async move {
            match this.ask(&repository).await {
                Ok(_) => {}
                Err(error) => tracing::info!(%repository, %error, "whether it is still for everyone is not known"),
            }
        });
    }
}

impl Inner {
    async fn ask(&self, repository: &Repository) -> Result<Verdict, CacheError> {
        let origin: &Origin = self.origins.origin(repository)?;
        let verdict = match origin.upstream.is_public(&repository.name).await {
            Ok(true) => Verdict::Public,
            Ok(false) => Verdict::NotPublic,
            Err(UpstreamError::NotFound) => Verdict::Absent,
            Err(reason) => {
                let Repository { registry, name } = repository.clone();
                return Err(CacheError::Undecided { registry, name, reason: Arc::new(reason) });
            }
        };
        self.remember(repository, verdict).await;
        Ok(verdict)
    }

    /// That a repository is not for everyone is written down only in place of the opposite: whoever asks for names that
    /// mean nothing must not fill the disk.
    async fn remember(&self, repository: &Repository, verdict: Verdict) {
        let (store, of) = (self.store.clone(), repository.clone());
        let written = task::blocking(move || match (verdict, store.public(&of)?) {
            (Verdict::Public, _) => store.set_public(&of, true).map(|()| verdict),
            (Verdict::NotPublic, Some(_)) => store.set_public(&of, false).map(|()| verdict),
            // Gone is not private: what is kept of it is for its tags to decide.
            (Verdict::Absent, Some(record)) if record.is_public => Ok(Verdict::Public),
            _ => Ok(verdict),
        })
        .await;
        let verdict = written.unwrap_or_else(|error| {
            tracing::error!(%repository, %error, "whether a repository is for everyone is not kept on disk");
            verdict
        });
        self.learnt.insert(repository.clone(), Learnt { verdict, at: Some(self.clock.tick()) });
    }

    async fn recall(&self, repository: &Repository) -> Result<Learnt, CacheError> {
        if let Some(learnt) = self.learnt.get(repository) {
            return Ok(learnt);
        }
        let (store, of) = (self.store.clone(), repository.clone());
        let learnt = match task::blocking(move || store.public(&of)).await? {
            None => Learnt { verdict: Verdict::Unknown, at: None },
            Some(record) => {
                let age = self.clock.unix_seconds().checked_sub(record.at).map(Duration::from_secs);
                let at = age.and_then(|age| self.clock.tick().checked_sub(age));
                Learnt { verdict: if record.is_public { Verdict::Public } else { Verdict::NotPublic }, at }
            }
        };
        self.learnt.insert(repository.clone(), learnt);
        Ok(learnt)
    }

    fn is_within(&self, since: Option<Instant>, lifetime: Duration) -> bool {
        since.is_some_and(|since| self.clock.tick().saturating_duration_since(since) < lifetime)
    }
}
