//! The figures of the door: who asked for what kind of thing, how it went, how long it took.
//!
//! No label holds anything that a client chose.

use prometheus::{HistogramVec, IntCounterVec, Registry};

use super::activity::Activity;
use crate::metric;

/// Handles; clones count together.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    first_byte: HistogramVec,
    bytes: IntCounterVec,
    activity: Activity,
}

impl Metrics {
    /// Registers the door's figures.
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            requests: metric::counters(
                registry,
                "larder_requests_total",
                "Requests answered.",
                &["endpoint", "method", "status", "outcome"],
            ),
            seconds: metric::histograms(
                registry,
                "larder_request_duration_seconds",
                "From a request's headers to the last byte of its answer.",
                &["endpoint", "outcome"],
            ),
            first_byte: metric::histograms(
                registry,
                "larder_first_byte_seconds",
                "From a request's headers to the first byte of its answer's body.",
                &["outcome"],
            ),
            bytes: metric::counters(
                registry,
                "larder_response_bytes_total",
                "Bytes of bodies sent to clients.",
                &["outcome"],
            ),
            activity: Activity::default(),
        }
    }

    /// What is not for metrics: it has names.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// The first byte of a body is on its way.
    pub fn began_to_answer(&self, outcome: &str, seconds: f64) {
        self.first_byte.with_label_values(&[outcome]).observe(seconds);
    }

    /// One request is done.
    pub fn answered(&self, endpoint: &str, method: &str, status: &str, outcome: &str, bytes: u64, seconds: f64) {
        self.requests.with_label_values(&[endpoint, method, status, outcome]).inc();
        self.seconds.with_label_values(&[endpoint, outcome]).observe(seconds);
        self.bytes.with_label_values(&[outcome]).inc_by(bytes);
    }
}
