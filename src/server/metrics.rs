//! The figures of all listeners. A label is a listener's name, never a client.

use prometheus::{IntGauge, IntGaugeVec, Registry};

use crate::metric;

/// Counts connections.
#[derive(Clone, Debug)]
pub struct Metrics {
    connections: IntGaugeVec,
}

impl Metrics {
    /// Registers the figures. One is enough for all listeners.
    pub fn new(registry: &Registry) -> Metrics {
        let connections = metric::gauges(registry, "larder_connections", "Open connections of clients.", &["listener"]);
        Metrics { connections }
    }

    /// The open connections of one listener.
    pub fn connections(&self, listener: &'static str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }
}
