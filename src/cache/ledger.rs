//! What the rate limit was spent on: the last manifests that upstreams sent, each of which may count as a pull.
//!
//! For people who want to know who uses the budget up. Holds clients' addresses, so it is shown on the admin address
//! alone and never in a metric.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};

use crate::oci::{Reference, Repository};

/// Entries that are kept; the oldest goes first.
const MAX_ENTRIES: usize = 100;

/// Who a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBehalfOf {
    /// A client who waits.
    Client(IpAddr),
    /// An index whose attestations are fetched behind the client's back.
    Completion,
    /// A tag that was served stale in an outage and is confirmed after it.
    Refresh,
    /// Something that was found to be damaged on disk.
    Scrub,
    /// An image that is pinned.
    Pin,
}

impl fmt::Display for OnBehalfOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnBehalfOf::Client(address) => address.to_canonical().fmt(f),
            OnBehalfOf::Completion => f.write_str("completion"),
            OnBehalfOf::Refresh => f.write_str("refresh"),
            OnBehalfOf::Scrub => f.write_str("scrub"),
            OnBehalfOf::Pin => f.write_str("pin"),
        }
    }
}

impl Serialize for OnBehalfOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One manifest that an upstream sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Which upstream, as clients call it.
    pub upstream: String,
    /// `library/alpine:latest`, or `library/alpine@sha256:…`.
    pub image: String,
    /// For whom.
    pub on_behalf_of: OnBehalfOf,
}

/// The list. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Arc<Mutex<VecDeque<Spent>>>,
}

impl Ledger {
    /// Writes one down, at `at` seconds since 1970.
    pub fn note(&self, at: u64, repository: &Repository, reference: &Reference, on_behalf_of: OnBehalfOf) {
        let upstream = repository.registry.to_string();
        let image = image(repository, reference);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.pop_front();
        }
        entries.push_back(Spent { at, upstream, image, on_behalf_of });
    }

    /// All of them, the latest first.
    pub fn entries(&self) -> Vec<Spent> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

/// An image as people write it, without its registry.
fn image(repository: &Repository, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{}:{tag}", repository.name),
        Reference::Digest(digest) => format!("{}@{digest}", repository.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_hundred_are_kept() {
        let ledger = Ledger::default();
        let repository = Repository { registry: "docker.io".parse().unwrap(), name: "library/a".parse().unwrap() };
        let client = OnBehalfOf::Client("::ffff:10.0.0.7".parse().unwrap());
        for n in 0..250 {
            ledger.note(n, &repository, &format!("v{n}").parse().unwrap(), client);
        }
        let entries = ledger.entries();
        assert_eq!(entries.len(), MAX_ENTRIES);
        assert_eq!((entries[0].image.as_str(), entries[99].image.as_str()), ("library/a:v249", "library/a:v150"));
        let json = serde_json::to_value(&entries[0]).unwrap();
        assert_eq!(json["on_behalf_of"], "10.0.0.7", "as people know the address");
    }
}
