//! The client to one other registry, Docker Hub or any that speaks the same protocol, and to its fallbacks.
//!
//! Hides hosts, accounts, tokens, redirects, retries, outages and connections behind a few questions. Knows nothing of our
//! disk, our configuration file or our clients, and believes nothing: content is the caller's to verify, and where an
//! upstream sends us is checked before anything goes there.

mod address;
mod allowance;
mod asker;
mod blob;
mod breaker;
mod budget;
mod cause;
mod challenge;
mod credentials;
mod dial;
mod error;
mod flow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod headers;
mod health;
mod host;
mod line;
mod metrics;
mod origin;
mod probe;
mod proxy;
mod question;
mod realm;
mod redirect;
mod report;
mod settings;
#[cfg(test)]
mod tests;
mod throttle;
mod token;
mod transport;
mod trust;

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::watch;

pub use blob::BlobBody;
pub use error::{Part, Phase, UpstreamError};
pub use flow::Flow;
pub use metrics::Metrics;
pub use question::Span;
pub use report::{AccountReport, HostReport, PartReport, PartState, Report};
pub use settings::{Account, Proxies, Settings, SetupError};
pub use throttle::Priority;

use crate::clock::Clock;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, MediaType, Reference, Registry, RepoName, Tag};
use flow::Shares;
use health::Outlook;
use host::Host;
use line::{Answer, excerpt};
use metrics::{Kind, Meter};
use proxy::ProxyRule;
use question::Question;

/// Largest page of tags that is read: some 100,000 long ones.
const MAX_TAGS: usize = 16 << 20;

/// Another registry. Clones share its connections and tokens.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    name: Registry,
    parallel: usize,
    has_account: bool,
    shares: Option<Arc<Shares>>,
    outlook: Outlook,
    meter: Meter,
    registry: Host,
    fallbacks: Vec<Host>,
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
        let (tls, proxies) = (trust::client_config(&settings)?, Arc::new(ProxyRule::new(&settings.proxies)?));
        let (meter, outlook) = (Meter::new(metrics, settings.name.to_string()), Outlook::default());
        let shares = settings.bandwidth.map(|rate| Arc::new(Shares::new(rate, clock.clone())));
        let host = |url, accounts, meter| {
            let watched = (meter, outlook.clone(), clock.clone());
            Host::new(url, accounts, &settings, (tls.clone(), proxies.clone()), watched, shares.clone())
        };
        let registry = host(&settings.url, &settings.accounts, meter.clone());
        // What our account is for is the registry alone.
        let fallbacks = settings.fallbacks.iter().map(|url| host(url, &[], meter.for_fallback())).collect();
        let has_account = !settings.accounts.is_empty();
        let Settings { name, parallel, .. } = settings;
        Ok(Upstream(Arc::new(Inner { name, parallel, has_account, shares, outlook, meter, registry, fallbacks })))
    }

    /// What clients call it.
    pub fn name(&self) -> &Registry {
        &self.0.name
    }

    /// How many connections may fetch one large blob side by side.
    pub fn parallel(&self) -> usize {
        self.0.parallel
    }

    /// A flow over this upstream's line, to fetch a blob in.
    pub fn flow(&self, priority: Priority) -> Flow {
        Flow::new(self.0.shares.as_ref(), priority)
    }

    /// Whether who wants a blob has to wait for others.
    pub fn is_crowded(&self) -> bool {
        let serving = self.hosts().find(|host| !host.health().is_down());
        serving.unwrap_or(&self.0.registry).line().is_crowded()
    }

    /// Whether content that is not here cannot be had now, from the registry or from any fallback: a part of each that
    /// is needed for it is out of order, and nobody need wait to find that out.
    pub fn is_down(&self) -> bool {
        self.hosts().all(|host| host.health().is_down())
    }

    /// Whether content can be had from others, too, when the registry fails.
    pub fn has_fallbacks(&self) -> bool {
        !self.0.fallbacks.is_empty()
    }

    /// Since when the registry has been out of order, if it is; seconds since 1970.
    pub fn down_since(&self) -> Option<u64> {
        self.0.registry.health().down_since()
    }

    /// Notes that someone with a copy at hand has waited for the registry for `patience` and does not wait any longer. A
    /// part that has left a question without an answer for so long counts as out of order until it answers one, though
    /// questions for what is not here still go to it: it may only be slow.
    pub fn lost_patience(&self, patience: Duration) {
        self.0.registry.health().lost_patience(patience);
    }

    /// Whether what no client waits for may be asked: the rate limit has more left than is reserved for those who wait.
    pub fn has_budget_to_spare(&self) -> bool {
        self.0.registry.line().allowance().has_to_spare()
    }

    /// Whether it is asked as someone, and not as anyone: then it may give what is not for everybody.
    pub fn has_account(&self) -> bool {
        self.0.has_account
    }

    /// Whether anyone may pull from `repo`, asked without our account.
    ///
    /// # Errors
    /// See [`UpstreamError`]: it could not be asked.
    pub async fn is_public(&self, repo: &RepoName) -> Result<bool, UpstreamError> {
        // Only reading proves it: a token service grants what it likes, and the registry heeds it or not.
        let question = Question::new(Kind::Tags, repo, "tags/list?n=1".into());
        match self.0.registry.ask_as_stranger(question).await {
            Ok(_tags) => Ok(true),
            Err(UpstreamError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Counts an answer that was served stale because this upstream is out of order, for the line that ends the outage.
    pub fn served_stale(&self) {
        self.0.outlook.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes whenever an outage ends.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.0.outlook.recoveries.subscribe()
    }

    /// How it is, for people and their tools.
    pub fn report(&self) -> Report {
        Report {
            name: self.0.name.to_string(),
            registry: self.0.registry.report(),
            fallbacks: self.0.fallbacks.iter().map(Host::report).collect(),
        }
    }

    /// What a manifest is. Free of charge on Docker Hub.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn head_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        reach: Reach,
    ) -> Result<ManifestHead, UpstreamError> {
        let question = Question::new(Kind::ManifestHead, repo, format!("manifests/{reference}"));
        let read = |answer: Answer| ready(Ok(headers::digest(&answer.headers)));
        let (digest, is_fallback) = self.ask(reach, question, read).await?;
        Ok(ManifestHead { digest, is_fallback })
    }

    /// A manifest. Counts as a pull on Docker Hub.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        reach: Reach,
    ) -> Result<FetchedManifest, UpstreamError> {
        let question = Question::new(Kind::Manifest, repo, format!("manifests/{reference}"));
        let read = |mut answer: Answer| async move { answer.whole(MAX_MANIFEST).await };
        let (bytes, is_fallback) = self.ask(reach, question, read).await?;
        Ok(FetchedManifest { bytes, is_fallback })
    }

    /// Whether those who may read `repo` may read this blob, and how long it is, if that can be learned.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn head_blob(&self, repo: &RepoName, digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        let question = Question::new(Kind::BlobHead, repo, format!("blobs/{digest}"));
        let read = |answer: Answer| ready(Ok(headers::content_length(&answer.headers)));
        match self.ask(Reach::Fallbacks, question, read).await {
            Ok((length, _)) => Ok(length),
            // A registry may redirect without looking: the one who has the bytes says that it has not.
            Err(UpstreamError::Status { part: Part::Cdn, status: 404 | 410 }) => Err(UpstreamError::NotFound),
            Err(error) => Err(error),
        }
    }

    /// A blob, or `span` of it if the upstream does ranges.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        span: Span,
        flow: &Flow,
    ) -> Result<BlobBody, UpstreamError> {
        let question = Question::of_blob(repo, format!("blobs/{digest}"), span, flow);
        let read = |answer| ready(BlobBody::new(answer, span));
        Ok(self.ask(Reach::Fallbacks, question, read).await?.0)
    }

    /// The index of what refers to a manifest, as it came. Only from the registry: a fallback that knows of nothing says
    /// so as if there were nothing.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn referrers(&self, repo: &RepoName, digest: &Digest) -> Result<Bytes, UpstreamError> {
        let question = Question::new(Kind::Referrers, repo, format!("referrers/{digest}"));
        let mut answer = self.0.registry.ask(question).await?;
        let essence = headers::essence(&answer.headers);
        if essence != MediaType::OciIndex.as_str() && essence != "application/json" {
            let reason = format!("a list of referrers cannot be {}", excerpt(&essence));
            return Err(answer.fault(answer.invalid(&reason)));
        }
        answer.whole(MAX_MANIFEST).await
    }

    /// A repository's tags, at most `n`, behind `last`. What is no tag is left out. Only from the registry: nobody could
    /// tell from a fallback's list what is missing in it.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn tags(&self, repo: &RepoName, n: Option<usize>, last: Option<&str>) -> Result<TagPage, UpstreamError> {
        let n = n.map(|n| format!("n={n}"));
        let last = last.map(|last| format!("last={}", utf8_percent_encode(last, NON_ALPHANUMERIC)));
        let query: Vec<String> = n.into_iter().chain(last).collect();
        let path = if query.is_empty() { "tags/list".into() } else { format!("tags/list?{}", query.join("&")) };
        let mut answer = self.0.registry.ask(Question::new(Kind::Tags, repo, path)).await?;
        let body = answer.whole(MAX_TAGS).await?;
        let list: TagList =
            serde_json::from_slice(&body).map_err(|_| answer.fault(answer.invalid("it is no list of tags")))?;
        let tags = list.tags.unwrap_or_default();
        let more = headers::has_next_page(&answer.headers);
        Ok(TagPage { tags: tags.iter().filter_map(|tag| tag.parse().ok()).collect(), more })
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.0.registry].into_iter().chain(&self.0.fallbacks)
    }

    /// What `read` makes of the first answer to `question`, and whether a fallback gave it. If nobody gives any, the
    /// registry's word counts.
    async fn ask<T, F: Future<Output = Result<T, UpstreamError>>>(
        &self,
        reach: Reach,
        question: Question,
        read: impl Fn(Answer) -> F,
    ) -> Result<(T, bool), UpstreamError> {
        let error = match self.0.registry.ask(question.clone()).await {
            Ok(answer) => match read(answer).await {
                Ok(content) => return Ok((content, false)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if reach == Reach::Registry || !is_worth_another_host(question.kind, &error) {
            return Err(error);
        }
        for fallback in &self.0.fallbacks {
            let Ok(answer) = fallback.ask(question.clone()).await else { continue };
            let Ok(content) = read(answer).await else { continue };
            let (upstream, kind, repo) = (self.0.name.as_str(), question.kind.as_str(), &question.repo);
            tracing::info!(upstream, fallback = fallback.name(), kind, %repo, reason = %error, "a fallback answered");
            self.0.meter.fallback(question.kind);
            return Ok((content, true));
        }
        Err(error)
    }
}

/// Whether a fallback may know better than a registry that says so.
fn is_worth_another_host(kind: Kind, error: &UpstreamError) -> bool {
    match error {
        // The blob is known, and has no such bytes.
        UpstreamError::OutOfRange { .. } => false,
        // HEAD has been refused for hours where GET was not (protocol 2.6): a GET goes first, and then as far as this one.
        UpstreamError::Refused { .. } | UpstreamError::Status { status: 400..=499, .. } => kind != Kind::ManifestHead,
        _ => true,
    }
}

#[derive(Deserialize)]
struct TagList {
    // Some registries write `null` for a repository that has lost its last tag.
    tags: Option<Vec<String>>,
}
