//! The figures of the fill: how many there are, who waits for them, how they ended.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::error::{CacheError, Missing};
use crate::metric;
use crate::oci;

/// Handles; clones count together.
#[derive(Clone)]
pub struct Metrics {
    /// Fills that run now.
    pub fills_in_flight: IntGauge,
    /// Readers of fills that run now.
    pub fill_waiters: IntGauge,
    fills: IntCounterVec,
    mismatches: IntCounterVec,
    incomplete: IntCounterVec,
    fallback_tags: IntCounterVec,
    tags_gone: IntCounterVec,
    evictions: IntCounterVec,
    scrubbed: IntCounterVec,
}

impl Metrics {
    /// Registers the cache's figures.
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            fills_in_flight: metric::gauge(
                registry,
                "larder_fills_in_flight",
                "Blobs being fetched from upstream now.",
            ),
            fill_waiters: metric::gauge(registry, "larder_fill_waiters", "Clients reading a blob while it is fetched."),
            fills: metric::counters(
                registry,
                "larder_fills_total",
                "Blobs fetched from upstream, by how it ended.",
                &["result"],
            ),
            mismatches: metric::counters(
                registry,
                "larder_digest_mismatches_total",
                "Content that was not what its digest says, by where it came from.",
                &["where"],
            ),
            incomplete: metric::counters(
                registry,
                "larder_incomplete_refused_total",
                "Images not offered in an outage because a part of them is not cached, by which.",
                &["missing"],
            ),
            fallback_tags: metric::counters(
                registry,
                "larder_fallback_tags_total",
                "Answers about a tag that came from a fallback.",
                &["upstream"],
            ),
            evictions: metric::counters(
                registry,
                "larder_cache_evictions_total",
                "Images evicted, by why: room was waited for, the limit came near, or no tag reached them.",
                &["reason"],
            ),
            scrubbed: metric::counters(
                registry,
                "larder_scrub_blobs_total",
                "Blobs at rest that were read and checked, by what they were; and those fetched anew after that.",
                &["result"],
            ),
            tags_gone: metric::counters(
                registry,
                "larder_tags_gone_total",
                "Cached tags that their registry does not have any more, by what became of them.",
                &["upstream", "action"],
            ),
        }
    }

    /// Shows what can be counted of an upstream before there is any of it: an alert must tell "never" from "not measured".
    pub fn expect(&self, upstream: &oci::Registry) {
        self.fallback_tags.with_label_values(&[upstream.as_str()]);
        for action in ["kept", "dropped"] {
            self.tags_gone.with_label_values(&[upstream.as_str(), action]);
        }
        for missing in Missing::ALL {
            self.incomplete.with_label_values(&[missing.as_str()]);
        }
    }

    /// An image was not offered.
    pub fn incomplete(&self, missing: Missing) {
        self.incomplete.with_label_values(&[missing.as_str()]).inc();
    }

    /// A fallback said what a tag means.
    pub fn fallback_tag(&self, upstream: &oci::Registry) {
        self.fallback_tags.with_label_values(&[upstream.as_str()]).inc();
    }

    /// An image went.
    pub fn evicted(&self, reason: &str) {
        self.evictions.with_label_values(&[reason]).inc();
    }

    /// A blob at rest was looked at.
    pub fn scrubbed(&self, result: &str) {
        self.scrubbed.with_label_values(&[result]).inc();
    }

    /// A tag is gone upstream.
    pub fn tag_gone(&self, upstream: &oci::Registry, action: &str) {
        self.tags_gone.with_label_values(&[upstream.as_str(), action]).inc();
    }

    /// A fill ended.
    pub fn fill_ended<T>(&self, result: &Result<T, CacheError>) {
        let result = match result {
            Ok(_) => "complete",
            Err(CacheError::Mismatch { .. } | CacheError::NotAManifest { .. }) => "mismatch",
            Err(CacheError::Absent { .. } | CacheError::NotMirrored(_) | CacheError::Private { .. }) => "absent",
            Err(CacheError::Unavailable { .. } | CacheError::Incomplete { .. } | CacheError::Undecided { .. }) => {
                "upstream"
            }
            Err(CacheError::Storage(_)) => "storage",
            Err(CacheError::Abandoned | CacheError::Busy | CacheError::Late) => "abandoned",
        };
        self.fills.with_label_values(&[result]).inc();
    }

    /// What is on disk is not what was written.
    pub fn stored_mismatch(&self) {
        self.mismatches.with_label_values(&["disk"]).inc();
    }

    /// Upstream sent something else than was asked for.
    pub fn upstream_mismatch(&self) {
        self.mismatches.with_label_values(&["upstream"]).inc();
    }
}

/// Counts one for as long as it lives.
pub struct Held(IntGauge);

impl Held {
    /// Counts one more.
    pub fn new(gauge: &IntGauge) -> Held {
        gauge.inc();
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
