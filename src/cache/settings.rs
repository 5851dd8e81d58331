//! How the cache behaves: plain values, already read from wherever they stand.

use std::time::Duration;

use super::scrubber::Pace;

/// How the cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long answers hold.
    pub lifetimes: Lifetimes,
    /// A client whose content is not here waits at most this long for the head of an answer.
    pub first_byte_timeout: Duration,
    /// Whether the attestations of a cached index are fetched, too.
    pub complete_indexes: bool,
    /// How what is at rest is looked after.
    pub scrub: Pace,
}

/// How long answers hold.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// A tag is served this long without asking upstream.
    pub tag_ttl: Duration,
    /// A client with a copy at hand waits at most this long for upstream's confirmation.
    pub revalidate_timeout: Duration,
    /// That something does not exist is believed this long; a question that failed is not repeated for as long.
    pub negative_ttl: Duration,
}
