//! What the index tells Prometheus. Names are contract.

use prometheus::{IntCounter, IntGauge, Registry};

/// The index's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) rebuilds: IntCounter,
    pub(super) sync_mode: IntGauge,
    pub(super) state: IntGauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// They are registered there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            rebuilds: IntCounter::new(
                "larder_index_rebuilds_total",
                "How often the index was built anew from the files",
            )?,
            sync_mode: IntGauge::new(
                "larder_index_sync_mode",
                "1 if the file system keeps the index's writes in order; 0 if a power cut costs a rebuild",
            )?,
            state: IntGauge::new("larder_index_state", "0 ready, 1 opening, 2 rebuilding, 3 degraded, 4 closed")?,
        };
        registry.register(Box::new(metrics.rebuilds.clone()))?;
        registry.register(Box::new(metrics.sync_mode.clone()))?;
        registry.register(Box::new(metrics.state.clone()))?;
        Ok(metrics)
    }
}
