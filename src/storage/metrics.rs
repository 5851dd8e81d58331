//! The store's figures: what is kept, and what was set aside.

use std::path::Path;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Registry};

use super::index::Index;
use super::space::{Space, Usage};
use crate::metric;

/// Counts what is set aside.
pub struct Metrics {
    quarantined: IntGauge,
}

impl Metrics {
    /// Registers the store's figures.
    pub fn new(registry: &Registry, index: Index, space: Space, quarantine: &Path) -> Metrics {
        let quarantined =
            metric::gauge(registry, "larder_quarantined_blobs", "Blobs set aside because their content was wrong.");
        quarantined.set(std::fs::read_dir(quarantine).map_or(0, |entries| entries.count()) as i64);
        // Registering fails only where these names stand already, and `metric` has just proved this registry to be new.
        let _ = registry.register(Box::new(Kept::new(index, space)));
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
    space: Space,
    bytes: IntGaugeVec,
    blobs: IntGaugeVec,
    released: IntGauge,
}

impl Kept {
    fn new(index: Index, space: Space) -> Kept {
        let apart = Registry::new();
        Kept {
            index,
            space,
            bytes: metric::gauges(
                &apart,
                "larder_cache_bytes",
                "Bytes of disk that cached content uses: complete blobs, and room for those on their way in.",
                &["kind"],
            ),
            blobs: metric::gauges(&apart, "larder_cache_blobs", "Cached blobs on disk.", &["kind"]),
            released: metric::gauge(
                &apart,
                "larder_released_bytes",
                "Bytes of disk that content uses which was pushed and deleted, and is not collected yet nor the cache's.",
            ),
        }
    }
}

impl Collector for Kept {
    fn desc(&self) -> Vec<&Desc> {
        [self.bytes.desc(), self.blobs.desc(), self.released.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let totals = self.index.totals();
        let Usage { blobs, parts, reserved, released } = self.space.usage();
        self.bytes.with_label_values(&["cached"]).set(blobs as i64);
        self.bytes.with_label_values(&["filling"]).set((parts + reserved) as i64);
        self.blobs.with_label_values(&["cached"]).set(totals.blobs as i64);
        self.released.set(released as i64);
        [self.bytes.collect(), self.blobs.collect(), self.released.collect()].concat()
    }
}
