//! What the index tells Prometheus. Names are contract.

use prometheus::{IntCounter, IntGauge, Registry};

use crate::metric;

/// The index's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) rebuilds: IntCounter,
    pub(super) sync_mode: IntGauge,
    pub(super) state: IntGauge,
}

impl Metrics {
    /// Registers the index's figures.
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            rebuilds: metric::counter(
                registry,
                "larder_index_rebuilds_total",
                "How often the index was built anew from the files.",
            ),
            sync_mode: metric::gauge(
                registry,
                "larder_index_sync_mode",
                "1 if the file system keeps the index's writes in order; 0 if a power cut costs a rebuild.",
            ),
            state: metric::gauge(
                registry,
                "larder_index_state",
                "0 ready, 1 opening, 2 rebuilding, 3 degraded, 4 closed.",
            ),
        }
    }
}
