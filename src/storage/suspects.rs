//! What nobody seemed to need when it was last looked for: garbage, if nobody asks for it before a grace period is over.
//!
//! A look at all files takes a while, and what it finds may be needed again the moment it has passed. So whoever uses
//! something clears it of suspicion, also of one that is only about to be raised: suspicion lasts only where nothing
//! happened from the look's beginning on. It is measured on monotonic time and kept in memory, so that neither a clock
//! that jumps nor a restart makes anything old.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::oci::{Digest, RepoName};

/// Most uses that are remembered while files are looked at; if there are more, that look finds nothing.
const MAX_CLEARED: usize = 1 << 20;

/// What may be garbage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Suspect {
    /// A hosted repository's link to a blob that none of its manifests names.
    Link(RepoName, Digest),
    /// A blob that no repository holds.
    Blob(Digest),
}

/// Something that nobody needs, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// What.
    pub suspect: Suspect,
    /// Since it was first found so.
    pub age: Duration,
    /// Length of the content in bytes; 0 if it is not here. That of a link is freed only if nobody else holds it.
    pub size: u64,
}

/// All suspects.
#[derive(Default)]
pub struct Suspects {
    /// Whether there is anything to clear: most of the time there is not.
    armed: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    since: HashMap<Suspect, Instant>,
    /// What was used since the look began.
    cleared: Option<HashSet<Suspect>>,
}

impl Suspects {
    /// It is in use.
    pub fn clear(&self, suspect: &Suspect) {
        if !self.armed.load(Ordering::SeqCst) {
            return;
        }
        let mut inner = self.lock();
        inner.since.remove(suspect);
        if let Some(cleared) = inner.cleared.as_mut().filter(|cleared| cleared.len() < MAX_CLEARED) {
            cleared.insert(suspect.clone());
        }
    }

    /// Begins to look. Uses from here on count.
    pub fn begin(&self) {
        self.lock().cleared = Some(HashSet::new());
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Ends a look that could not see everything: what it found means nothing, and what was found before stays.
    pub fn give_up(&self) {
        let mut inner = self.lock();
        inner.cleared = None;
        self.armed.store(!inner.since.is_empty(), Ordering::SeqCst);
    }

    /// Ends a look, which found this and nothing else.
    pub fn finish(&self, found: HashSet<Suspect>, now: Instant) -> Vec<Garbage> {
        let mut inner = self.lock();
        let cleared = inner.cleared.take().unwrap_or_default();
        let overflown = cleared.len() >= MAX_CLEARED;
        inner.since.retain(|suspect, _| found.contains(suspect));
        for suspect in found {
            if !overflown && !cleared.contains(&suspect) {
                inner.since.entry(suspect).or_insert(now);
            }
        }
        self.armed.store(!inner.since.is_empty(), Ordering::SeqCst);
        let garbage = inner.since.iter().map(|(suspect, since)| Garbage {
            suspect: suspect.clone(),
            age: now.saturating_duration_since(*since),
            size: 0,
        });
        garbage.collect()
    }

    /// Whether it is still suspect; it is about to be removed, and is no suspect any more.
    pub fn take(&self, suspect: &Suspect) -> bool {
        self.lock().since.remove(suspect).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_is_used_during_or_after_a_look_is_no_suspect() {
        let (suspects, clock) = (Suspects::default(), Clock::system());
        let [idle, during, after] = [1, 2, 3].map(|n| Suspect::Blob(Digest::sha256(&[n])));
        let found = || HashSet::from([idle.clone(), during.clone(), after.clone()]);
        let ages = |garbage: Vec<Garbage>| {
            garbage.into_iter().map(|garbage| (garbage.suspect, garbage.age)).collect::<HashMap<_, _>>()
        };
        suspects.begin();
        suspects.clear(&during);
        let now = clock.tick();
        let first = ages(suspects.finish(found(), now));
        assert_eq!(first, HashMap::from([(idle.clone(), Duration::ZERO), (after.clone(), Duration::ZERO)]));
        suspects.clear(&after);
        assert!(!suspects.take(&after));

        suspects.begin();
        let second = ages(suspects.finish(found(), now + HOUR));
        assert_eq!(second[&idle], HOUR);
        assert_eq!((second[&during], second[&after]), (Duration::ZERO, Duration::ZERO));
        assert!(suspects.take(&idle) && !suspects.take(&idle));
    }

    #[test]
    fn a_look_that_was_given_up_changes_nothing() {
        let (suspects, clock) = (Suspects::default(), Clock::system());
        let suspect = Suspect::Blob(Digest::sha256(b"x"));
        let now = clock.tick();
        suspects.begin();
        suspects.finish(HashSet::from([suspect.clone()]), now);
        suspects.begin();
        suspects.give_up();
        suspects.begin();
        assert_eq!(suspects.finish(HashSet::from([suspect.clone()]), now + HOUR)[0].age, HOUR);
        suspects.begin();
        assert!(suspects.finish(HashSet::new(), now + HOUR).is_empty(), "what is needed again is forgotten");
    }
}
