//! What is counted about upstreams. Labels come from closed sets: never a repository, never a host.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::error::{Part, UpstreamError};
use crate::metric;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A manifest.
    Manifest,
    /// What a manifest is.
    ManifestHead,
    /// A blob.
    Blob,
    /// How long a blob is.
    BlobHead,
    /// A token.
    Token,
    /// A repository's tags.
    Tags,
    /// What refers to a manifest.
    Referrers,
}

impl Kind {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Manifest => "manifest",
            Kind::ManifestHead => "manifest_head",
            Kind::Blob => "blob",
            Kind::BlobHead => "blob_head",
            Kind::Token => "token",
            Kind::Tags => "tags",
            Kind::Referrers => "referrers",
        }
    }
}

/// The figures of all upstreams.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    bytes: IntCounterVec,
    duration: HistogramVec,
    up: IntGaugeVec,
    limit: IntGaugeVec,
    remaining: IntGaugeVec,
    fallback: IntCounterVec,
}

impl Metrics {
    /// Registers the figures.
    pub fn new(registry: &Registry) -> Metrics {
        let counters = |name, help, labels: &[&str]| metric::counters(registry, name, help, labels);
        let gauges = |name, help, labels: &[&str]| metric::gauges(registry, name, help, labels);
        Metrics {
            requests: counters(
                "larder_upstream_requests_total",
                "Requests sent to upstreams, each redirect and each retry by itself.",
                &["upstream", "kind", "status"],
            ),
            bytes: counters("larder_upstream_bytes_total", "Bytes of bodies from upstreams.", &["upstream"]),
            duration: metric::histograms(
                registry,
                "larder_upstream_request_duration_seconds",
                "From sending a request to an upstream to the head of its answer.",
                &["upstream", "kind"],
            ),
            up: gauges(
                "larder_upstream_up",
                "Whether the last thing that a part of an upstream did was right.",
                &["upstream", "part"],
            ),
            limit: gauges("larder_upstream_ratelimit_limit", "Pulls that an upstream allows.", &["upstream"]),
            remaining: gauges("larder_upstream_ratelimit_remaining", "Pulls that are left of them.", &["upstream"]),
            fallback: counters(
                "larder_upstream_fallback_total",
                "Answers that a fallback gave because the registry did not.",
                &["upstream", "kind"],
            ),
        }
    }
}

/// The figures of one upstream.
#[derive(Clone)]
pub struct Meter {
    metrics: Metrics,
    upstream: String,
    is_fallback: bool,
}

impl Meter {
    /// Counts for `upstream`.
    pub fn new(metrics: Metrics, upstream: String) -> Meter {
        Meter { metrics, upstream, is_fallback: false }
    }

    /// Counts what is asked of one of its fallbacks. The health and the rate limit that are shown are the registry's.
    pub fn for_fallback(&self) -> Meter {
        Meter { is_fallback: true, ..self.clone() }
    }

    /// What the upstream is called.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// A request ended, with the head of an answer or without one.
    pub fn request(&self, kind: Kind, outcome: Result<u16, &UpstreamError>, took: Duration) {
        let status = match outcome {
            Ok(status) => status.to_string(),
            Err(UpstreamError::TimedOut { .. }) => "timeout".into(),
            Err(_) => "error".into(),
        };
        self.metrics.requests.with_label_values(&[self.upstream.as_str(), kind.as_str(), &status]).inc();
        let duration = &self.metrics.duration;
        duration.with_label_values(&[self.upstream.as_str(), kind.as_str()]).observe(took.as_secs_f64());
    }

    /// So many more bytes arrived.
    pub fn bytes(&self, count: usize) {
        self.metrics.bytes.with_label_values(&[&self.upstream]).inc_by(count as u64);
    }

    /// A part did what it should, or did not.
    pub fn health(&self, part: Part, is_up: bool) {
        if self.is_fallback {
            return;
        }
        self.metrics.up.with_label_values(&[self.upstream.as_str(), part.as_str()]).set(i64::from(is_up));
    }

    /// The upstream told what its rate limit leaves us, over all accounts.
    pub fn rate_limit(&self, limit: u64, remaining: u64) {
        if self.is_fallback {
            return;
        }
        self.metrics.limit.with_label_values(&[&self.upstream]).set(limit as i64);
        self.metrics.remaining.with_label_values(&[&self.upstream]).set(remaining as i64);
    }

    /// A fallback gave what the registry did not.
    pub fn fallback(&self, kind: Kind) {
        self.metrics.fallback.with_label_values(&[self.upstream.as_str(), kind.as_str()]).inc();
    }
}
