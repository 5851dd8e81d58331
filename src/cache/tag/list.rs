//! Lists of tags: upstream's own, passed on, or what is known here when that cannot be had. Nothing is kept of them.

use crate::cache::error::CacheError;
use crate::cache::origin::Origins;
use crate::cache::outcome::Outcome;
use crate::cache::stale::{Reason, Stale};
use crate::oci::{Repository, Tag};
use crate::storage::Store;
use crate::task;

/// A page of a repository's tags.
#[derive(Clone, Debug)]
pub struct TagList {
    /// The tags, in the order they came.
    pub tags: Vec<Tag>,
    /// Whether more follow.
    pub more: bool,
    /// Where it comes from.
    pub outcome: Outcome,
    /// Why it may be old or lack some, if it may.
    pub stale: Option<Stale>,
}

/// Lists the tags of all repositories.
pub struct TagLists {
    store: Store,
    origins: Origins,
}

impl TagLists {
    /// Lists of `origins`, or of what is in `store`.
    pub fn new(store: Store, origins: Origins) -> TagLists {
        TagLists { store, origins }
    }

    /// Upstream's list.
    ///
    /// # Errors
    /// It has none, or gives none now.
    pub async fn ask(
        &self,
        repository: &Repository,
        n: Option<usize>,
        last: Option<&str>,
    ) -> Result<TagList, CacheError> {
        let page = self.origins.of(repository)?.tags(&repository.name, n, last).await;
        let page = page.map_err(|error| CacheError::from_upstream(&repository.registry, error))?;
        Ok(TagList { tags: page.tags, more: page.more, outcome: Outcome::Bypass, stale: None })
    }

    /// The tags that are known here, because upstream's list could not be had.
    ///
    /// # Errors
    /// None is: then `error`.
    pub async fn known(
        &self,
        repository: &Repository,
        n: Option<usize>,
        last: Option<&str>,
        error: CacheError,
    ) -> Result<TagList, CacheError> {
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
        let reason = Reason::of(&error);
        if reason.is_outage() {
            self.origins.of(repository)?.served_stale();
        }
        let stale = Some(Stale { registry: repository.registry.clone(), reason, age: None });
        Ok(TagList { tags, more, outcome: Outcome::Stale, stale })
    }
}
