//! What refers to a manifest: signatures, attestations, SBOMs.
//!
//! Always answers. Docker 29 asks on every pull of an image with attestations, and fails the pull on anything but a list;
//! a list that is old or empty harms nobody (protocol.md 3.5).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::CacheError;
use super::ledger::OnBehalfOf;
use super::manifests::Manifests;
use super::origin::Origins;
use super::outcome::Outcome;
use super::settings::Settings;
use super::single_flight::{Role, SingleFlight};
use super::stale::{Reason, Stale};
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::referrer::fallback_tag;
use crate::oci::{Digest, MediaType, Registry, Repository, Tag};
use crate::storage::Store;
use crate::task;
use crate::upstream::{Part, Upstream, UpstreamError};

/// Lists remembered as fresh; the rest is asked for again.
const MAX_LISTS: u64 = 10_000;

type Key = (Repository, Digest);

/// A list of referrers.
#[derive(Clone, Debug)]
pub struct ReferrersList {
    /// The index that lists them.
    pub index: Index,
    /// Where it comes from.
    pub outcome: Outcome,
    /// Why it may be old or empty, if it may.
    pub stale: Option<Stale>,
}

impl ReferrersList {
    /// No referrers, of a repository of `registry` that could not be asked.
    pub fn empty(registry: &Registry) -> ReferrersList {
        let stale = Stale { registry: registry.clone(), reason: Reason::NoAnswer, age: None };
        ReferrersList { index: Index::empty(), outcome: Outcome::Stale, stale: Some(stale) }
    }
}

/// An OCI index of referrers. Descriptors keep every field that upstream sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    #[serde(default = "Index::media_type")]
    media_type: String,
    /// The referrers' descriptors.
    pub manifests: Vec<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<serde_json::Value>,
}

impl Index {
    fn media_type() -> String {
        MediaType::OciIndex.to_string()
    }

    fn empty() -> Index {
        Index { schema_version: 2, media_type: Index::media_type(), manifests: Vec::new(), annotations: None }
    }

    /// Keeps those of one artifact type.
    pub fn retain(&mut self, artifact_type: &str) {
        self.manifests.retain(|manifest| manifest.get("artifactType").is_some_and(|found| found == artifact_type));
    }
}

/// When upstream was last asked, and why it did not answer, if it did not.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    failed: Option<Reason>,
}

/// The referrers of all cached repositories.
pub struct Referrers {
    store: Store,
    origins: Origins,
    manifests: Manifests,
    clock: Clock,
    settings: Settings,
    asked: Memory<Key, Asked>,
    questions: SingleFlight<Key, Index>,
}

impl Referrers {
    /// Referrers kept in `store`, asked for at `origins`.
    pub fn new(store: Store, origins: Origins, manifests: Manifests, clock: Clock, settings: Settings) -> Referrers {
        let (asked, questions) = (memory::of_entries(MAX_LISTS), SingleFlight::new("referrers"));
        Referrers { store, origins, manifests, clock, settings, asked, questions }
    }

    /// What refers to `digest`, as far as can be known in time.
    pub async fn list(
        &self,
        repository: &Repository,
        digest: &Digest,
        on_behalf_of: OnBehalfOf,
    ) -> Result<ReferrersList, CacheError> {
        let key = (repository.clone(), *digest);
        let (store, (of, digest)) = (self.store.clone(), key.clone());
        let record = task::blocking(move || store.referrers(&of, &digest)).await?;
        let kept = record.and_then(|record| Some((serde_json::from_str(&record.index).ok()?, record.at)));
        let age = kept.as_ref().map(|(_, at)| Duration::from_secs(self.clock.unix_seconds().saturating_sub(*at)));
        let is_at_hand = kept.is_some();
        let kept: Index = kept.map(|(index, _)| index).unwrap_or_else(Index::empty);
        let upstream = self.origins.of(repository)?;
        let reason = match self.standing(&key) {
            Some(Asked { failed: None, .. }) => {
                return Ok(ReferrersList { index: kept, outcome: Outcome::Hit, stale: None });
            }
            Some(Asked { failed: Some(reason), .. }) => reason,
            None if is_at_hand && !upstream.is_down() && !upstream.has_budget_to_spare() => Reason::Budget,
            None => match self.ask_in_time(&key, &kept, is_at_hand, upstream, on_behalf_of).await {
                Ok((index, role)) => {
                    let outcome = if role == Role::Led { Outcome::Miss } else { Outcome::Joined };
                    return Ok(ReferrersList { index, outcome, stale: None });
                }
                Err(error) => {
                    tracing::warn!(%repository, digest = %key.1, %error, "referrers are listed without upstream");
                    let reason = Reason::of(&error);
                    self.asked.insert(key, Asked { at: self.clock.tick(), failed: Some(reason) });
                    reason
                }
            },
        };
        if reason.is_outage() {
            upstream.served_stale();
        }
        let stale = Stale { registry: repository.registry.clone(), reason, age };
        Ok(ReferrersList { index: kept, outcome: Outcome::Stale, stale: Some(stale) })
    }

    /// Upstream's list, in the time that whoever has another one at hand has for it.
    async fn ask_in_time(
        &self,
        key: &Key,
        kept: &Index,
        is_at_hand: bool,
        upstream: &Upstream,
        on_behalf_of: OnBehalfOf,
    ) -> Result<(Index, Role), CacheError> {
        let revalidate_timeout = self.settings.lifetimes.revalidate_timeout;
        let patience = if is_at_hand { revalidate_timeout } else { self.settings.first_byte_timeout };
        match timeout(patience, self.ask(key, kept, on_behalf_of)).await {
            Ok((answer, role)) => answer.map(|index| (index, role)),
            Err(_elapsed) => {
                upstream.lost_patience(patience);
                Err(CacheError::Late)
            }
        }
    }

    /// The last question, while it stands. One that failed is not repeated before `negative_ttl`: an
    /// outage costs one wait, not one per pull.
    fn standing(&self, key: &Key) -> Option<Asked> {
        let asked = self.asked.get(key)?;
        let lifetimes = &self.settings.lifetimes;
        let lifetime = if asked.failed.is_none() { lifetimes.tag_ttl } else { lifetimes.negative_ttl };
        (self.clock.tick().saturating_duration_since(asked.at) < lifetime).then_some(asked)
    }

    async fn ask(&self, key: &Key, kept: &Index, on_behalf_of: OnBehalfOf) -> (Result<Index, CacheError>, Role) {
        let work = || {
            let (origins, manifests, store) = (self.origins.clone(), self.manifests.clone(), self.store.clone());
            let (asked, clock, key, kept) = (self.asked.clone(), self.clock.clone(), key.clone(), kept.clone());
            async move {
                let index = match fetch(&origins, &manifests, &key, on_behalf_of).await? {
                    Some(index) => index,
                    // Outages have said so of what exists: a list at hand is not given up for it.
                    None => kept,
                };
                // An empty list needs no file: whoever asks for what does not exist must not fill the disk.
                if !index.manifests.is_empty() {
                    let text = serde_json::to_string(&index).unwrap_or_default();
                    let (repository, digest) = key.clone();
                    task::blocking(move || store.set_referrers(&repository, &digest, &text)).await?;
                }
                asked.insert(key, Asked { at: clock.tick(), failed: None });
                Ok(index)
            }
        };
        self.questions.join(key.clone(), work).await
    }
}

/// Upstream's list; where it knows no such endpoint, what clients keep under the fallback tag
/// (distribution-spec, "Referrers Tag Schema"). `None`: there is neither.
async fn fetch(
    origins: &Origins,
    manifests: &Manifests,
    (repository, digest): &Key,
    on_behalf_of: OnBehalfOf,
) -> Result<Option<Index>, CacheError> {
    let upstream = origins.of(repository)?;
    let error = match upstream.referrers(&repository.name, digest).await {
        Ok(bytes) => return parse(repository, &bytes).map(Some),
        Err(error) if has_no_endpoint(&error) => error,
        Err(error) => return Err(CacheError::from_upstream(&repository.registry, error)),
    };
    tracing::debug!(%error, "no referrers endpoint; the fallback tag is asked for");
    let Ok(tag) = fallback_tag(digest).parse::<Tag>() else { return Ok(None) };
    match manifests.resolve(repository, &tag, None, on_behalf_of).await {
        Ok(list) => {
            let (manifest, _) = manifests.get(repository, &list.digest, on_behalf_of).await?;
            parse(repository, &manifest.bytes).map(Some)
        }
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(repository: &Repository, bytes: &[u8]) -> Result<Index, CacheError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let reason = UpstreamError::Invalid { part: Part::Registry, reason: format!("no list of referrers: {error}") };
        CacheError::from_upstream(&repository.registry, reason)
    })
}

fn has_no_endpoint(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::NotFound | UpstreamError::Status { status: 400 | 404 | 405 | 501, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_keeps_what_it_does_not_know_and_filters_by_type() {
        let text = r#"{"schemaVersion":2,"manifests":[{"artifactType":"a","x":1},{"artifactType":"b"},{}]}"#;
        let mut index: Index = serde_json::from_str(text).unwrap();
        index.retain("a");
        assert_eq!(index.manifests, [serde_json::json!({"artifactType": "a", "x": 1})]);
        assert!(serde_json::to_string(&index).unwrap().contains(MediaType::OciIndex.as_str()));
    }
}
