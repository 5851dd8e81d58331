//! The client to one other registry: Docker Hub, or any that speaks the same protocol.
//!
//! Hides tokens, redirects, retries and connections behind six questions. Knows nothing of our disk, our configuration
//! file or our clients, and believes nothing: content is the caller's to verify, and where an upstream sends us is
//! checked before anything goes there.

mod address;
mod blob;
mod challenge;
mod credentials;
mod dial;
mod error;
mod flow;
mod headers;
mod line;
mod metrics;
mod origin;
mod question;
mod realm;
mod redirect;
mod settings;
#[cfg(test)]
mod tests;
mod throttle;
mod token;
mod transport;
mod trust;

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

pub use blob::{BlobBody, Span};
pub use error::{Part, Phase, UpstreamError};
pub use flow::Flow;
pub use headers::RateLimit;
pub use metrics::Metrics;
pub use settings::{Account, Settings, SetupError};
pub use throttle::Priority;

use crate::clock::Clock;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, MediaType, Reference, Registry, RepoName, Tag};
use credentials::Credentials;
use dial::Dialer;
use flow::Shares;
use line::{Answer, Line, excerpt};
use metrics::{Kind, Meter};
use origin::Origin;
use question::{Asker, Question};
use transport::Transport;

/// Largest page of tags that is read: some 100,000 long ones.
const MAX_TAGS: usize = 16 << 20;

/// Another registry. Clones share its connections and tokens.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    name: Registry,
    parallel: usize,
    shares: Option<Arc<Shares>>,
    line: Arc<Line>,
    asker: Asker,
}

/// What an upstream says a manifest is, without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// A hint: only bytes have a digest.
    pub digest: Option<Digest>,
    /// Its length.
    pub size: Option<u64>,
    /// Its media type, as it was written.
    pub content_type: Option<String>,
}

/// A manifest as it came, to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The bytes.
    pub bytes: Bytes,
    /// What the upstream says they hash to.
    pub digest: Option<Digest>,
    /// Their media type, as it was written.
    pub content_type: Option<String>,
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
            bandwidth,
            ..
        } = settings;
        let dialer = Dialer::new(&url, tls, connect_timeout);
        let transport = Transport::new(dialer, header_timeout, max_connections);
        let meter = Meter::new(metrics, name.to_string());
        let shares = bandwidth.map(|rate| Arc::new(Shares::new(rate, clock.clone())));
        let line = Line::new(transport, meter, clock.clone(), stall_timeout, max_connections, shares.clone());
        let line = Arc::new(line);
        let credentials = Credentials::new(Origin::of(&url), account, line.clone(), clock);
        let asker = Asker::new(&url, line.clone(), credentials);
        Ok(Upstream(Arc::new(Inner { name, parallel, shares, line, asker })))
    }

    /// What clients call it.
    pub fn name(&self) -> &Registry {
        &self.0.name
    }

    /// How many connections may fetch one large blob side by side.
    pub fn parallel(&self) -> usize {
        self.0.parallel
    }

    /// Whether who asks for a blob has to wait for others: every connection is taken, or the line has no more to give.
    pub fn is_crowded(&self) -> bool {
        self.0.line.is_crowded()
    }

    /// A flow over this upstream's line, to fetch a blob in.
    pub fn flow(&self, priority: Priority) -> Flow {
        Flow::new(self.0.shares.as_ref(), priority)
    }

    /// What it last told about its rate limit; an upstream without one never does.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.0.line.rate_limit()
    }

    /// What a manifest is. Free of charge on Docker Hub.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn head_manifest(&self, repo: &RepoName, reference: &Reference) -> Result<ManifestHead, UpstreamError> {
        let answer = self.ask(Kind::ManifestHead, repo, format!("manifests/{reference}")).await?;
        Ok(ManifestHead {
            digest: headers::digest(&answer.headers),
            size: headers::content_length(&answer.headers),
            content_type: headers::content_type(&answer.headers).map(str::to_owned),
        })
    }

    /// A manifest. Counts as a pull on Docker Hub.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn manifest(&self, repo: &RepoName, reference: &Reference) -> Result<FetchedManifest, UpstreamError> {
        let mut answer = self.ask(Kind::Manifest, repo, format!("manifests/{reference}")).await?;
        Ok(FetchedManifest {
            bytes: answer.whole(MAX_MANIFEST).await?,
            digest: headers::digest(&answer.headers),
            content_type: headers::content_type(&answer.headers).map(str::to_owned),
        })
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

    /// A blob, or `span` of it if the upstream does ranges, at the pace that `flow` gets of the line.
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
        let path = format!("blobs/{digest}");
        let answer = self.0.asker.ask(&Question { kind: Kind::Blob, repo, path, span, flow: Some(flow) }).await?;
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
            return Err(answer.invalid(&format!("a list of referrers cannot be {}", excerpt(&essence))));
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
        let list: TagList = serde_json::from_slice(&body).map_err(|_| answer.invalid("it is no list of tags"))?;
        let tags = list.tags.unwrap_or_default();
        let more = headers::has_next_page(&answer.headers);
        Ok(TagPage { tags: tags.iter().filter_map(|tag| tag.parse().ok()).collect(), more })
    }

    async fn ask(&self, kind: Kind, repo: &RepoName, path: String) -> Result<Answer, UpstreamError> {
        self.0.asker.ask(&Question { kind, repo, path, span: Span::WHOLE, flow: None }).await
    }
}

#[derive(Deserialize)]
struct TagList {
    // Some registries write `null` for a repository that has lost its last tag.
    tags: Option<Vec<String>>,
}
