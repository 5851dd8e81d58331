//! Where repositories come from: the upstream of each registry, and what the operator wants of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use globset::GlobSet;

use super::absence::Health;
use super::error::CacheError;
use crate::oci::{Registry, RepoName, Repository};
use crate::upstream::Upstream;

/// What becomes of a tag that is kept here when its registry does not have it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeleted {
    /// It is served on, and marked.
    Keep,
    /// It goes, too.
    Drop,
}

/// An upstream with what is decided here about its content.
pub struct Origin {
    /// The upstream.
    pub upstream: Upstream,
    /// What becomes of tags that it has deleted.
    pub on_deleted: OnDeleted,
    private: GlobSet,
    trouble: Mutex<Option<Instant>>,
}

impl Origin {
    /// Content of `upstream`, of which anyone who reaches us may pull `private` repositories, too, although only our account
    /// can read them.
    pub fn new(upstream: Upstream, on_deleted: OnDeleted, private: GlobSet) -> Origin {
        Origin { upstream, on_deleted, private, trouble: Mutex::new(None) }
    }

    /// Whether it is one of those repositories.
    pub fn is_private(&self, name: &RepoName) -> bool {
        // A set without patterns takes the name apart all the same.
        !self.private.is_empty() && self.private.is_match(name.as_str())
    }

    /// Notes that at `now` it did not answer as it should.
    pub fn note_trouble(&self, now: Instant) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Whether it may be asked for what no client waits for.
    pub fn has_time_for_us(&self) -> bool {
        !self.upstream.is_down() && self.upstream.has_budget_to_spare()
    }

    /// How far its word can be relied on.
    pub fn health(&self) -> Health {
        let trouble = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        Health { is_down: self.upstream.is_down(), trouble }
    }
}

/// The origins by what clients call them. Clones share them.
#[derive(Clone)]
pub struct Origins {
    origins: Arc<HashMap<Registry, Origin>>,
}

impl Origins {
    /// Collects origins under their names.
    pub fn new(origins: impl IntoIterator<Item = Origin>) -> Origins {
        let origins = origins.into_iter().map(|origin| (origin.upstream.name().clone(), origin)).collect();
        Origins { origins: Arc::new(origins) }
    }

    /// The upstream that `repository` comes from.
    ///
    /// # Errors
    /// Its registry is not mirrored here.
    pub fn of(&self, repository: &Repository) -> Result<&Upstream, CacheError> {
        self.origin(repository).map(|origin| &origin.upstream)
    }

    /// The same, with what the operator wants of it.
    ///
    /// # Errors
    /// Its registry is not mirrored here.
    pub fn origin(&self, repository: &Repository) -> Result<&Origin, CacheError> {
        self.origins.get(&repository.registry).ok_or_else(|| CacheError::NotMirrored(repository.registry.clone()))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Registry, &Origin)> {
        self.origins.iter()
    }
}
