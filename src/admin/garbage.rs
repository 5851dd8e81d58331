//! `/api/gc`: what nobody needs any more, and taking it away. Which that is, is the store's to say.

use std::time::Duration;

use serde::Serialize;

use crate::hosted::GRACE;
use crate::storage::{Collected, Garbage, Hosted, StorageError, Suspect};
use crate::task;

/// Most that is listed; what is beyond is counted.
const LISTED: usize = 10_000;

/// What was removed, and what is garbage still.
#[derive(Debug, Serialize)]
pub struct Report {
    removed: Removed,
    // How long nobody must have needed something before it is removed.
    grace_s: u64,
    garbage: Vec<Entry>,
    // Beyond those that are listed.
    more: usize,
}

#[derive(Debug, Default, Serialize)]
struct Removed {
    links: u64,
    blobs: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Entry {
    // Absent: a blob that no repository holds. Present: this repository's link to one that no manifest of it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    digest: String,
    bytes: u64,
    age_s: u64,
}

impl Report {
    /// Looks, and removes nothing.
    ///
    /// # Errors
    /// The files could not be read completely: nothing is concluded then.
    pub fn look(store: &Hosted) -> Result<Report, StorageError> {
        Ok(Report::of(Collected::default(), GRACE, store.garbage()?))
    }

    /// Removes what nobody has needed for as long as it takes, while others push and pull.
    ///
    /// # Errors
    /// As [`Report::look`], or something could not be removed.
    pub fn collect(store: &Hosted) -> Result<Report, StorageError> {
        let collected = store.collect_garbage(GRACE)?;
        Ok(Report::of(collected, GRACE, store.garbage()?))
    }

    /// Removes all garbage. For a store that nobody else uses: who has begun to push begins again.
    ///
    /// # Errors
    /// As [`Report::collect`].
    pub fn collect_all(store: &Hosted) -> Result<Report, StorageError> {
        let mut sum = Collected::default();
        loop {
            // Blobs are garbage only when their links have gone.
            let now = store.collect_garbage(Duration::ZERO)?;
            if now == Collected::default() {
                return Ok(Report::of(sum, Duration::ZERO, store.garbage()?));
            }
            sum.links += now.links;
            sum.blobs += now.blobs;
            sum.bytes += now.bytes;
        }
    }

    fn of(Collected { links, blobs, bytes }: Collected, grace: Duration, mut garbage: Vec<Garbage>) -> Report {
        garbage.sort_by_key(|garbage| (std::cmp::Reverse(garbage.age), std::cmp::Reverse(garbage.size)));
        let more = garbage.len().saturating_sub(LISTED);
        garbage.truncate(LISTED);
        let entry = |Garbage { suspect, age, size }| {
            let (repository, digest) = match suspect {
                Suspect::Link(name, digest) => (Some(name.to_string()), digest),
                Suspect::Blob(digest) => (None, digest),
            };
            Entry { repository, digest: digest.to_string(), bytes: size, age_s: age.as_secs() }
        };
        let removed = Removed { links, blobs, bytes };
        Report { removed, grace_s: grace.as_secs(), garbage: garbage.into_iter().map(entry).collect(), more }
    }
}

/// Does it where blocking is allowed.
pub async fn blocking(
    store: Hosted,
    work: impl FnOnce(&Hosted) -> Result<Report, StorageError> + Send + 'static,
) -> Result<Report, StorageError> {
    task::blocking(move || work(&store)).await
}
