//! What is remembered of tags between questions: what they mean, how long that is believed, what upstream last did.
//!
//! Lifetimes run on monotonic time, which no jump of the wall clock can shorten or stretch. Never asks anyone.

use std::time::{Duration, Instant};

use crate::cache::absence::Absence;
use crate::cache::settings::Lifetimes;
use crate::cache::stale::{Reason, Stale};
use crate::clock::Clock;
use crate::memory::{self, Memory};
use crate::oci::{Digest, Repository, Tag};
use crate::storage::{AbsentRecord, TagRecord};

/// Tags kept in memory; each is small. The rest is read from its file again.
const MAX_TAGS: u64 = 100_000;
/// Absences remembered; each costs one question when it is forgotten.
const MAX_ABSENCES: u64 = 10_000;

/// A tag.
pub type Key = (Repository, Tag);

/// A tag that is kept here.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The manifest.
    pub digest: Digest,
    /// Whether a fallback said so: then it is not believed for long.
    pub is_fallback: bool,
    /// When upstream last confirmed it, in seconds since 1970.
    pub confirmed_at: u64,
    /// That the registry has no such tag any more, so it says.
    pub absence: Option<Absence>,
    // `None`: longer ago than this process remembers.
    confirmed: Option<Instant>,
    // When a question last failed, and what to say instead of repeating it at once.
    failed: Option<(Instant, Reason)>,
}

impl Known {
    /// Whether upstream confirmed it when it was asked after that moment.
    pub fn is_newer_than(&self, asked: Instant) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed > asked)
    }
}

/// What is remembered of questions that were asked. Clones share it.
#[derive(Clone)]
pub struct TagMemory {
    clock: Clock,
    lifetimes: Lifetimes,
    known: Memory<Key, Known>,
    absent: Memory<Key, Instant>,
}

impl TagMemory {
    /// Remembers nothing yet.
    pub fn new(clock: Clock, lifetimes: Lifetimes) -> TagMemory {
        let (known, absent) = (memory::of_entries(MAX_TAGS), memory::of_entries(MAX_ABSENCES));
        TagMemory { clock, lifetimes, known, absent }
    }

    /// What is remembered of a tag.
    pub fn get(&self, key: &Key) -> Option<Known> {
        self.known.get(key)
    }

    /// Knows nothing of a tag any more, nor that there is none.
    pub fn forget(&self, key: &Key) {
        self.known.invalidate(key);
        self.absent.invalidate(key);
    }

    /// Remembers what stands in a tag's file, and when upstream last confirmed that, in seconds since 1970.
    pub fn read(&self, key: &Key, record: TagRecord, checked: u64) -> Known {
        let absence = record.absent.map(|AbsentRecord { since, is_gone }| {
            let first = self.then(since).unwrap_or_else(|| self.clock.tick());
            Absence { first, since, is_gone }
        });
        let (confirmed, confirmed_at) = (self.then(checked), checked);
        let TagRecord { digest, is_fallback, .. } = record;
        let known = Known { digest, is_fallback, confirmed_at, absence, confirmed, failed: None };
        self.known.insert(key.clone(), known);
        known
    }

    /// The moment of a date. A wall clock that was set back makes an answer old, never younger than it is.
    fn then(&self, unix_seconds: u64) -> Option<Instant> {
        let age = self.clock.unix_seconds().checked_sub(unix_seconds).map(Duration::from_secs)?;
        self.clock.tick().checked_sub(age)
    }

    /// Whether a tag is believed without a question. What a fallback said is believed only until the registry may be
    /// asked again.
    pub fn is_fresh(&self, known: &Known) -> bool {
        let Lifetimes { tag_ttl, negative_ttl, .. } = self.lifetimes;
        let lifetime = if known.is_fallback { tag_ttl.min(negative_ttl) } else { tag_ttl };
        known.absence.is_none() && self.is_within(known.confirmed, lifetime)
    }

    /// Why a tag is not asked about again yet, if it is not.
    pub fn held_by(&self, known: &Known) -> Option<Reason> {
        let (failed, reason) = known.failed?;
        let Lifetimes { tag_ttl, negative_ttl, .. } = self.lifetimes;
        let lifetime = if matches!(reason, Reason::Gone(_)) { tag_ttl } else { negative_ttl };
        self.is_within(Some(failed), lifetime).then_some(reason)
    }

    /// Whether upstream has just said that there is no such tag, of which nothing is kept here.
    pub fn is_absent(&self, key: &Key) -> bool {
        self.is_within(self.absent.get(key), self.lifetimes.negative_ttl)
    }

    /// Upstream has said what a tag means, as of the moment at which it was `asked` (RFC 9111, 4.2.3).
    pub fn confirm(&self, key: Key, digest: Digest, is_fallback: bool, asked: Instant) {
        let (confirmed, confirmed_at) = (Some(asked), self.clock.unix_seconds());
        self.absent.invalidate(&key);
        self.known.insert(key, Known { digest, is_fallback, confirmed_at, absence: None, confirmed, failed: None });
    }

    /// Upstream has said that there is no such tag, and there is none here either.
    pub fn note_absent(&self, key: Key) {
        self.known.invalidate(&key);
        self.absent.insert(key, self.clock.tick());
    }

    /// A question about a tag failed, unless the answer came in the meantime.
    pub fn fail(&self, key: &Key, known: &Known, reason: Reason) {
        let now = self.known.get(key).unwrap_or(*known);
        if now.confirmed == known.confirmed {
            self.known.insert(key.clone(), Known { failed: Some((self.clock.tick(), reason)), ..now });
        }
    }

    /// Upstream has said that there is no such tag, although there is one here.
    pub fn miss(&self, key: &Key, known: &Known, absence: Option<Absence>, reason: Reason) {
        let failed = Some((self.clock.tick(), reason));
        self.known.insert(key.clone(), Known { absence, failed, ..*known });
    }

    /// What is told of a tag that is served stale.
    pub fn stale(&self, key: &Key, known: &Known, reason: Reason) -> Stale {
        let age = self.clock.unix_seconds().saturating_sub(known.confirmed_at);
        Stale { registry: key.0.registry.clone(), reason, age: Some(Duration::from_secs(age)) }
    }

    fn is_within(&self, since: Option<Instant>, lifetime: Duration) -> bool {
        since.is_some_and(|since| self.clock.tick().saturating_duration_since(since) < lifetime)
    }
}
