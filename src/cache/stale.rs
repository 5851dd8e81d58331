//! Why an answer may be old: one short line for the client who gets it, and whether an outage is to blame.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use super::error::CacheError;
use crate::oci::Registry;
use crate::upstream::UpstreamError;

/// Why upstream has not confirmed what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is out of order, since then if that is known; seconds since 1970.
    OutOfOrder(Option<u64>),
    /// The last question had no answer that can be used, or none in time.
    NoAnswer,
    /// It limits how often we may ask, or most of what it allows is used up: the rest is kept for who waits.
    Budget,
    /// It said, once so far, that it has no such tag.
    Missing,
    /// It has no such tag any more, since then; seconds since 1970.
    Gone(u64),
    /// It is back after an outage, and this tag's turn to be confirmed comes soon.
    Queued,
}

impl Reason {
    /// Why something is served as it is, when upstream answered with this error.
    pub fn of(error: &CacheError) -> Reason {
        match error {
            error if error.is_absence() => Reason::Missing,
            error if error.is_limit() => Reason::Budget,
            CacheError::Unavailable { reason, .. } => match **reason {
                UpstreamError::Down { since, .. } => Reason::OutOfOrder(Some(since)),
                _ => Reason::NoAnswer,
            },
            _ => Reason::NoAnswer,
        }
    }

    /// Whether an outage is why.
    pub fn is_outage(self) -> bool {
        matches!(self, Reason::OutOfOrder(_) | Reason::NoAnswer | Reason::Queued)
    }
}

/// What is told of an answer that may be old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Who should have confirmed it.
    pub registry: Registry,
    /// Why it did not.
    pub reason: Reason,
    /// For how long it has not, if that is known.
    pub age: Option<Duration>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = &self.registry;
        match self.reason {
            Reason::OutOfOrder(Some(since)) => write!(f, "{registry} is out of order since {}", date(since)),
            Reason::OutOfOrder(None) => write!(f, "{registry} is out of order"),
            Reason::NoAnswer => write!(f, "{registry} gave no usable answer"),
            Reason::Budget => write!(f, "{registry} limits our rate, and what is left is kept for pulls"),
            Reason::Missing => write!(f, "{registry} said that it has no such tag, which is being looked into"),
            Reason::Gone(since) => write!(f, "gone upstream: {registry} has no such tag since {}", date(since)),
            Reason::Queued => write!(f, "{registry} is back and will soon be asked"),
        }?;
        write!(f, "; this is the copy kept here")
    }
}

fn date(unix_seconds: u64) -> String {
    // Beyond what can be written as a date no clock has ever been: the beginning is as wrong.
    let latest = Duration::from_secs(unix_seconds.min(250_000_000_000));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + latest).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_into_a_header() {
        let reasons = [
            Reason::OutOfOrder(Some(0)),
            Reason::OutOfOrder(None),
            Reason::NoAnswer,
            Reason::Budget,
            Reason::Missing,
            Reason::Gone(u64::MAX),
            Reason::Queued,
        ];
        for reason in reasons {
            let registry = "docker.io".parse().unwrap();
            let text = Stale { registry, reason, age: None }.to_string();
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\'), "{text}");
            assert!(text.len() < 200, "{text}");
        }
    }
}
