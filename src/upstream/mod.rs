//! The client to one other registry: Docker Hub, or any that speaks the same protocol.
//!
//! Hides tokens, redirects, retries and connections behind six questions. Knows nothing of our disk, our configuration
//! file or our clients, and believes nothing: content is the caller's to verify, and where an upstream sends us is
//! checked before anything goes there.

mod address;
mod asker;
mod blob;
mod breaker;
mod challenge;
mod credentials;
mod dial;
mod error;
mod headers;
mod health;
mod host;
mod line;
mod metrics;
mod origin;
mod probe;
mod question;
mod realm;
mod redirect;
mod settings;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod trust;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::watch;

pub use blob::BlobBody;
pub use error::{Part, Phase, UpstreamError};
pub use headers::RateLimit;
pub use metrics::Metrics;
pub use question::Span;
pub use settings::{Account, Settings, SetupError};

use crate::clock::Clock;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, MediaType, Reference, Registry, RepoName, Tag};
use asker::Asker;
use credentials::Credentials;
use dial::Dialer;
use health::{Health, Outlook};
use host::Host;
use line::{Answer, Line, excerpt};
use metrics::{Kind, Meter};
use origin::Origin;
use probe::Probe;
use question::Question;
use transport::Transport;

/// Largest page of tags that is read: some 100,000 long ones.
const MAX_TAGS: usize = 16 << 20;

/// Another registry. Clones share its connections and tokens.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    name: Registry,
    parallel: usize,
    outlook: Outlook,
    registry: Host,
}

/// How far a question may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the registry itself: what a fallback says a tag means may be older than the copy at hand.
    Registry,
    /// To the registry, and to its fallbacks in order when it is down, limits us or lacks what is asked for.
    Fallbacks,
}

/// What an upstream says a manifest is, without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// A hint: only bytes have a digest.
    pub digest: Option<Digest>,
    /// Whether a fallback says so.
    pub is_fallback: bool,
}

/// A manifest as it came, to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether a fallback has sent it.
    pub is_fallback: bool,
}

/// Some of a repository's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// The tags, in the upstream's order.
    pub tags: Vec<Tag>,
    /// Whether there are others behind the last one.
    pub more: bool,
}

impl Upstream {
    /// The upstream that `settings` describe. Asks nobody: not the network, not a resolver.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn new(settings: Settings, clock: Clock, metrics: Metrics) -> Result<Upstream, SetupError> {
        settings.check()?;
        let tls = trust::client_config(&settings)?;
        let Settings {
            name,
            url,
            account,
            connect_timeout,
            header_timeout,
            stall_timeout,
            max_connections,
            parallel,
            ..
        } = settings;
        let dialer = Dialer::new(&url, tls, connect_timeout);
        let transport = Transport::new(dialer, header_timeout, max_connections);
        let (meter, outlook) = (Meter::new(metrics, name.to_string()), Outlook::default());
        let host = url.host().unwrap_or_default().to_owned();
        let health = Arc::new(Health::new(host, meter.clone(), clock.clone(), outlook.clone()));
        let line = Line::new(transport, meter, health, clock.clone(), stall_timeout, max_connections);
        let line = Arc::new(line);
        let credentials = Credentials::new(Origin::of(&url), account, line.clone(), clock.clone());
        let asker = Arc::new(Asker::new(&url, line));
        Probe::look_after(&asker, credentials.clone(), clock.clone(), connect_timeout + header_timeout);
        let registry = Host::new(asker, credentials, clock);
        Ok(Upstream(Arc::new(Inner { name, parallel, outlook, registry })))
    }

    /// What clients call it.
    pub fn name(&self) -> &Registry {
        &self.0.name
    }

    /// How many connections may fetch one large blob side by side.
    pub fn parallel(&self) -> usize {
        self.0.parallel
    }

    /// Whether every connection for blobs is taken.
    pub fn is_crowded(&self) -> bool {
        self.0.registry.line().is_crowded()
    }

    /// Whether content that is not here cannot be had now, from the registry or from any fallback: a part of each that
    /// is needed for it is out of order, and nobody need wait to find that out.
    pub fn is_down(&self) -> bool {
        self.0.registry.health().is_down()
    }

    /// Since when the registry has been out of order, if it is; seconds since 1970.
    pub fn down_since(&self) -> Option<u64> {
        self.0.registry.health().down_since()
    }

    /// Notes that someone with a copy at hand has waited for the registry for `patience` and does not wait any longer. A
    /// part that has left a question without an answer for so long counts as out of order until it answers one.
    pub fn lost_patience(&self, patience: Duration) {
        self.0.registry.health().lost_patience(patience);
    }

    /// Whether what no client waits for may be asked: the rate limit has more left than is reserved for those who wait.
    pub fn has_budget_to_spare(&self) -> bool {
        true
    }

    /// Whether it is asked as someone, and not as anyone: then it may give what is not for everybody.
    pub fn has_account(&self) -> bool {
        false
    }

    /// Whether anyone may pull from `repo`, asked without our account.
    ///
    /// # Errors
    /// See [`UpstreamError`]: it could not be asked.
    pub async fn is_public(&self, _repo: &RepoName) -> Result<bool, UpstreamError> {
        Ok(true)
    }

    /// Counts an answer that was served stale because this upstream is out of order, for the line that ends the outage.
    pub fn served_stale(&self) {
        self.0.outlook.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes whenever an outage ends.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.0.outlook.recoveries.subscribe()
    }

    /// What it last told about its rate limit; an upstream without one never does.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.0.registry.line().rate_limit()
    }

    /// What a manifest is. Free of charge on Docker Hub.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn head_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        _reach: Reach,
    ) -> Result<ManifestHead, UpstreamError> {
        let answer = self.ask(Kind::ManifestHead, repo, format!("manifests/{reference}")).await?;
        Ok(ManifestHead { digest: headers::digest(&answer.headers), is_fallback: false })
    }

    /// A manifest. Counts as a pull on Docker Hub.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        _reach: Reach,
    ) -> Result<FetchedManifest, UpstreamError> {
        let mut answer = self.ask(Kind::Manifest, repo, format!("manifests/{reference}")).await?;
        Ok(FetchedManifest { bytes: answer.whole(MAX_MANIFEST).await?, is_fallback: false })
    }

    /// Whether those who may read `repo` may read this blob, and how long it is, if that can be learned.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn head_blob(&self, repo: &RepoName, digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        match self.ask(Kind::BlobHead, repo, format!("blobs/{digest}")).await {
            Ok(answer) => Ok(headers::content_length(&answer.headers)),
            // A registry may redirect without looking: the one who has the bytes says that it has not.
            Err(UpstreamError::Status { part: Part::Cdn, status: 404 | 410 }) => Err(UpstreamError::NotFound),
            Err(error) => Err(error),
        }
    }

    /// A blob, or `span` of it if the upstream does ranges.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn blob(&self, repo: &RepoName, digest: &Digest, span: Span) -> Result<BlobBody, UpstreamError> {
        let answer = self.0.registry.ask(Question::of_blob(repo, format!("blobs/{digest}"), span)).await?;
        BlobBody::new(answer, span)
    }

    /// The index of what refers to a manifest, as it came.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn referrers(&self, repo: &RepoName, digest: &Digest) -> Result<Bytes, UpstreamError> {
        let mut answer = self.ask(Kind::Referrers, repo, format!("referrers/{digest}")).await?;
        let essence = headers::essence(&answer.headers);
        if essence != MediaType::OciIndex.as_str() && essence != "application/json" {
            let reason = format!("a list of referrers cannot be {}", excerpt(&essence));
            return Err(answer.fault(answer.invalid(&reason)));
        }
        answer.whole(MAX_MANIFEST).await
    }

    /// A repository's tags, at most `n`, behind `last`. What is no tag is left out.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn tags(&self, repo: &RepoName, n: Option<usize>, last: Option<&str>) -> Result<TagPage, UpstreamError> {
        let n = n.map(|n| format!("n={n}"));
        let last = last.map(|last| format!("last={}", utf8_percent_encode(last, NON_ALPHANUMERIC)));
        let query: Vec<String> = n.into_iter().chain(last).collect();
        let path = if query.is_empty() { "tags/list".into() } else { format!("tags/list?{}", query.join("&")) };
        let mut answer = self.ask(Kind::Tags, repo, path).await?;
        let body = answer.whole(MAX_TAGS).await?;
        let list: TagList =
            serde_json::from_slice(&body).map_err(|_| answer.fault(answer.invalid("it is no list of tags")))?;
        let tags = list.tags.unwrap_or_default();
        let more = headers::has_next_page(&answer.headers);
        Ok(TagPage { tags: tags.iter().filter_map(|tag| tag.parse().ok()).collect(), more })
    }

    async fn ask(&self, kind: Kind, repo: &RepoName, path: String) -> Result<Answer, UpstreamError> {
        self.0.registry.ask(Question::new(kind, repo, path)).await
    }
}

#[derive(Deserialize)]
struct TagList {
    // Some registries write `null` for a repository that has lost its last tag.
    tags: Option<Vec<String>>,
}
