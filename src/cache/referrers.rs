//! What refers to a manifest: signatures, attestations, SBOMs.
//!
//! Always answers. Docker 29 asks on every pull of an image with attestations, and fails the pull on anything but a list;
//! a list that is old or empty harms nobody (protocol.md 3.5).

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::CacheError;
use super::manifests::Manifests;
use super::origin::Origins;
use super::outcome::Outcome;
use super::single_flight::{Role, SingleFlight};
use super::tags::Lifetimes;
use crate::clock::Clock;
use crate::oci::{Digest, MediaType, Repository, Tag};
use crate::storage::Store;
use crate::task;
use crate::upstream::UpstreamError;

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

/// The referrers of all cached repositories.
pub struct Referrers {
    store: Store,
    origins: Origins,
    manifests: Manifests,
    clock: Clock,
    lifetimes: Lifetimes,
    asked: moka::sync::Cache<Key, Instant>,
    questions: SingleFlight<Key, Index>,
}

impl Referrers {
    /// Referrers kept in `store`, asked for at `origins`.
    pub fn new(store: Store, origins: Origins, manifests: Manifests, clock: Clock, lifetimes: Lifetimes) -> Referrers {
        let (asked, questions) = (moka::sync::Cache::new(MAX_LISTS), SingleFlight::new("referrers"));
        Referrers { store, origins, manifests, clock, lifetimes, asked, questions }
    }

    /// What refers to `digest`, as far as can be known in time.
    pub async fn list(&self, repository: &Repository, digest: &Digest) -> Result<ReferrersList, CacheError> {
        let key = (repository.clone(), *digest);
        let (store, (of, digest)) = (self.store.clone(), key.clone());
        let kept = task::blocking(move || store.referrers(&of, &digest)).await?;
        let kept: Option<Index> = kept.and_then(|record| serde_json::from_str(&record.index).ok());
        let asked = self.asked.get(&key).map(|at| self.clock.tick().saturating_duration_since(at));
        if asked.is_some_and(|age| age < self.lifetimes.tag_ttl) {
            return Ok(ReferrersList { index: kept.unwrap_or_else(Index::empty), outcome: Outcome::Hit });
        }
        Ok(match kept {
            None => match self.ask(&key).await {
                (Ok(index), Role::Led) => ReferrersList { index, outcome: Outcome::Miss },
                (Ok(index), Role::Joined) => ReferrersList { index, outcome: Outcome::Joined },
                (Err(error), _) => self.unanswered(&key, Index::empty(), &error.to_string()),
            },
            Some(kept) => match timeout(self.lifetimes.revalidate_timeout, self.ask(&key)).await {
                Ok((Ok(index), _)) => ReferrersList { index, outcome: Outcome::Revalidated },
                Ok((Err(error), _)) => self.unanswered(&key, kept, &error.to_string()),
                Err(_elapsed) => self.unanswered(&key, kept, "no answer in time"),
            },
        })
    }

    /// The question is not repeated before `negative_ttl`: an outage costs one wait, not one per pull.
    fn unanswered(&self, key: &Key, index: Index, reason: &str) -> ReferrersList {
        tracing::warn!(repository = %key.0, digest = %key.1, reason, "referrers are served without asking upstream");
        let spared = self.lifetimes.tag_ttl.saturating_sub(self.lifetimes.negative_ttl);
        if let Some(asked) = self.clock.tick().checked_sub(spared) {
            self.asked.insert(key.clone(), asked);
        }
        ReferrersList { index, outcome: Outcome::Stale }
    }

    async fn ask(&self, key: &Key) -> (Result<Index, CacheError>, Role) {
        let work = || {
            let (origins, manifests, store) = (self.origins.clone(), self.manifests.clone(), self.store.clone());
            let (asked, clock, key) = (self.asked.clone(), self.clock.clone(), key.clone());
            async move {
                let index = fetch(&origins, &manifests, &key).await?;
                let text = serde_json::to_string(&index).unwrap_or_default();
                let (repository, digest) = key.clone();
                task::blocking(move || store.set_referrers(&repository, &digest, &text)).await?;
                asked.insert(key, clock.tick());
                Ok(index)
            }
        };
        self.questions.join(key.clone(), work).await
    }
}

/// Upstream's list; where it knows no such endpoint, what clients keep under the fallback tag
/// (distribution-spec, "Referrers Tag Schema").
async fn fetch(origins: &Origins, manifests: &Manifests, (repository, digest): &Key) -> Result<Index, CacheError> {
    let upstream = origins.of(repository)?;
    let error = match upstream.referrers(&repository.name, digest).await {
        Ok(bytes) => return Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| Index::empty())),
        Err(error) if has_no_endpoint(&error) => error,
        Err(error) => return Err(CacheError::from_upstream(&repository.registry, error)),
    };
    tracing::debug!(%error, "no referrers endpoint; the fallback tag is asked for");
    let Ok(tag) = fallback_tag(digest).parse::<Tag>() else { return Ok(Index::empty()) };
    match manifests.resolve(repository, &tag, None).await {
        Ok(list) => {
            let (manifest, _) = manifests.get(repository, &list).await?;
            Ok(serde_json::from_slice(&manifest.bytes).unwrap_or_else(|_| Index::empty()))
        }
        Err(error) if error.is_absence() => Ok(Index::empty()),
        Err(error) => Err(error),
    }
}

fn has_no_endpoint(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::NotFound | UpstreamError::Status { status: 400 | 404 | 405 | 501, .. })
}

/// The algorithm cut to 32 characters, the hash to 64.
fn fallback_tag(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}-{}", digest.algorithm().as_str(), &hex[..hex.len().min(64)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn the_fallback_tag_is_cut_to_what_a_tag_can_be() {
        for algorithm in Algorithm::ALL {
            let tag = fallback_tag(&Digest::of(algorithm, b"x"));
            assert!(tag.parse::<Tag>().is_ok());
            assert_eq!(tag.split('-').nth(1).unwrap().len(), 64);
        }
    }

    #[test]
    fn an_index_keeps_what_it_does_not_know_and_filters_by_type() {
        let text = r#"{"schemaVersion":2,"manifests":[{"artifactType":"a","x":1},{"artifactType":"b"},{}]}"#;
        let mut index: Index = serde_json::from_str(text).unwrap();
        index.retain("a");
        assert_eq!(index.manifests, [serde_json::json!({"artifactType": "a", "x": 1})]);
        assert!(serde_json::to_string(&index).unwrap().contains(MediaType::OciIndex.as_str()));
    }
}
