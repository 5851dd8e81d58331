//! The store's figures: what is kept, and what was set aside.

use std::path::Path;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Registry};

use super::index::Index;
use crate::metric;

/// Counts what is set aside.
pub struct Metrics {
    quarantined: IntGauge,
}

impl Metrics {
    /// Registers the store's figures.
    pub fn new(registry: &Registry, index: Index, quarantine: &Path) -> Metrics {
        let quarantined =
            metric::gauge(registry, "larder_quarantined_blobs", "Blobs set aside because their content was wrong.");
        quarantined.set(std::fs::read_dir(quarantine).map_or(0, |entries| entries.count()) as i64);
        // Registering fails only where these names stand already, and `metric` has just proved this registry to be new.
        let _ = registry.register(Box::new(Kept::new(index)));
        Metrics { quarantined }
    }

    /// One more was set aside.
    pub fn quarantined(&self) {
        self.quarantined.inc();
    }
}

/// Asks the index when someone looks, instead of counting along.
struct Kept {
    index: Index,
    bytes: IntGaugeVec,
    blobs: IntGaugeVec,
}

impl Kept {
    fn new(index: Index) -> Kept {
        let apart = Registry::new();
        Kept {
            index,
            bytes: metric::gauges(&apart, "larder_cache_bytes", "Bytes of cached content on disk.", &["kind"]),
            blobs: metric::gauges(&apart, "larder_cache_blobs", "Cached blobs on disk.", &["kind"]),
        }
    }
}

impl Collector for Kept {
    fn desc(&self) -> Vec<&Desc> {
        [self.bytes.desc(), self.blobs.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let totals = self.index.totals();
        self.bytes.with_label_values(&["cached"]).set(totals.bytes as i64);
        self.blobs.with_label_values(&["cached"]).set(totals.blobs as i64);
        [self.bytes.collect(), self.blobs.collect()].concat()
    }
}
