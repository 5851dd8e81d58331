//! The figures of all listeners. A label is a listener's name, never a client.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::metric;

/// Counts connections, and knows when certificates end.
#[derive(Clone, Debug)]
pub struct Metrics {
    connections: IntGaugeVec,
    expiry: IntGaugeVec,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers the figures. One is enough for all listeners.
    pub fn new(registry: &Registry) -> Metrics {
        let connections = metric::gauges(registry, "larder_connections", "Open connections of clients.", &["listener"]);
        let help = "When the certificate of a listener with TLS ends, in seconds since 1970.";
        let expiry = metric::gauges(registry, "larder_certificate_expiry_timestamp_seconds", help, &["listener"]);
        let help = "New certificates, keys or client CAs of a listener that were no good: the old ones are kept.";
        let refused = metric::counters(registry, "larder_certificates_refused_total", help, &["listener"]);
        Metrics { connections, expiry, refused }
    }

    /// The open connections of one listener.
    pub fn connections(&self, listener: &'static str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// When the certificate of one listener ends.
    pub fn certificate_expiry(&self, listener: &'static str) -> IntGauge {
        self.expiry.with_label_values(&[listener])
    }

    /// How often new files of one listener were no good.
    pub fn certificates_refused(&self, listener: &'static str) -> IntCounter {
        self.refused.with_label_values(&[listener])
    }
}
