//! What the doors did lately, for the operator's page: sums by day, the last errors, who and what asks most.
//!
//! Bounded whatever clients send. It holds names and addresses, so it is shown on the admin address alone and never becomes a
//! metric's label. It can be written as one line of text and taken up again; where that is kept is not its business.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};

use crate::cache::Outcome;

/// Errors that are kept; the oldest goes first.
const MAX_ERRORS: usize = 50;
/// Days that are kept, today included.
const MAX_DAYS: usize = 7;
/// Names that are counted at one time.
const MAX_NAMES: usize = 64;
/// Names that are shown.
const SHOWN: usize = 10;
const DAY_S: u64 = 24 * 60 * 60;

/// The record. Clones share it.
#[derive(Clone, Default)]
pub struct Activity {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    days: VecDeque<Day>,
    errors: VecDeque<Failure>,
    images: Top<String>,
    clients: Top<IpAddr>,
}

/// All of it, as it is written. Days are: which, requests, hits, bytes, cached bytes.
#[derive(Default, Deserialize, Serialize)]
struct Written {
    days: Vec<[u64; 5]>,
    errors: Vec<Failure>,
    images: Vec<(String, u64, u64)>,
    clients: Vec<(IpAddr, u64, u64)>,
}

/// What was answered on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Which, in UTC. Days since 1970 within, a date without.
    #[serde(serialize_with = "date")]
    pub day: u64,
    /// Requests that the cache decided, but for what it passed on without keeping.
    pub requests: u64,
    /// Those of them for which nothing was fetched.
    pub hits: u64,
    /// Bytes of bodies that were sent.
    pub bytes: u64,
    /// Those of them for which nothing was fetched.
    pub cached_bytes: u64,
}

/// An answer that should have been another one, and for which the client cannot be blamed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failure {
    /// When its request ended, in seconds since 1970.
    pub at: u64,
    /// What was asked for.
    pub path: String,
    /// The answer's status; 200 of one that was cut off.
    pub status: u16,
    /// What happened.
    pub reason: String,
}

/// A name, and how often it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Who or what.
    pub name: String,
    /// How often, or less. Each day before today counts half as much as the one after it.
    pub count: u64,
    /// How much less it may be.
    pub over: u64,
}

/// All that there is to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lately {
    /// The latest first.
    pub days: Vec<Day>,
    /// The latest first.
    pub errors: Vec<Failure>,
    /// Those that were asked for by tag at the mirror, the most often asked for first.
    pub images: Vec<Counted>,
    /// Who asked for them, the most busy first.
    pub clients: Vec<Counted>,
}

impl Activity {
    /// A request was answered at `at`, in seconds since 1970, with so many bytes. `pulled`: what it was given, if it asked for
    /// an image by its tag, and who it was.
    pub fn answered(&self, at: u64, outcome: Option<Outcome>, bytes: u64, pulled: Option<(String, IpAddr)>) {
        let kept = matches!(outcome, Some(Outcome::Hit | Outcome::Joined | Outcome::Revalidated | Outcome::Stale));
        let mut inner = self.lock();
        let day = inner.day(at / DAY_S);
        day.bytes += bytes;
        day.requests += u64::from(kept || outcome == Some(Outcome::Miss));
        day.hits += u64::from(kept);
        day.cached_bytes += if kept { bytes } else { 0 };
        if let Some((image, client)) = pulled {
            inner.images.count(image);
            inner.clients.count(client.to_canonical());
        }
    }

    /// Something went wrong.
    pub fn failed(&self, failure: Failure) {
        let errors = &mut self.lock().errors;
        if errors.len() >= MAX_ERRORS {
            errors.pop_front();
        }
        errors.push_back(failure);
    }

    /// What there is.
    pub fn lately(&self) -> Lately {
        let inner = self.lock();
        Lately {
            days: inner.days.iter().rev().cloned().collect(),
            errors: inner.errors.iter().rev().cloned().collect(),
            images: inner.images.first(),
            clients: inner.clients.first(),
        }
    }

    /// All of it, as one line of text. The same makes the same line.
    pub fn written(&self) -> Vec<u8> {
        let inner = self.lock();
        let day = |day: &Day| [day.day, day.requests, day.hits, day.bytes, day.cached_bytes];
        let written = Written {
            days: inner.days.iter().map(day).collect(),
            errors: inner.errors.iter().cloned().collect(),
            images: inner.images.all(),
            clients: inner.clients.all(),
        };
        drop(inner);
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Takes up what was written, before anything is counted. `false`: it is not what this version writes, and is left.
    pub fn take_up(&self, line: &[u8]) -> bool {
        let Ok(Written { days, errors, images, clients }) = serde_json::from_slice(line) else { return false };
        let mut inner = self.lock();
        for [day, requests, hits, bytes, cached_bytes] in days {
            *inner.day(day) = Day { day, requests, hits, bytes, cached_bytes };
        }
        inner.errors = errors.into_iter().take(MAX_ERRORS).collect();
        inner.images = Top::of(images);
        inner.clients = Top::of(clients);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A clock that was put back adds to the day that was latest.
    fn day(&mut self, day: u64) -> &mut Day {
        if self.days.back().is_none_or(|last| last.day < day) {
            let passed = self.days.back().map_or(0, |last| day - last.day);
            self.images.fade(passed);
            self.clients.fade(passed);
            if self.days.len() >= MAX_DAYS {
                self.days.pop_front();
            }
            self.days.push_back(Day { day, ..Day::default() });
        }
        let last = self.days.len() - 1;
        &mut self.days[last]
    }
}

/// Counts the most frequent of any number of names in little room ("space-saving", Metwally et al. 2005): a new name takes
/// the place of the rarest, and its count, of which it is then known how wrong it may be.
struct Top<T> {
    names: HashMap<T, (u64, u64)>,
}

impl<T> Default for Top<T> {
    fn default() -> Self {
        Top { names: HashMap::new() }
    }
}

impl<T: Clone + Eq + Ord + std::hash::Hash + ToString> Top<T> {
    fn of(names: Vec<(T, u64, u64)>) -> Top<T> {
        Top { names: names.into_iter().take(MAX_NAMES).map(|(name, count, over)| (name, (count, over))).collect() }
    }

    /// So many days have passed: what counted is worth half as much after each, so that the busy of last month give way.
    fn fade(&mut self, days: u64) {
        let half = |count: u64| count.checked_shr(u32::try_from(days).unwrap_or(u32::MAX)).unwrap_or(0);
        self.names.retain(|_, (count, over)| {
            (*count, *over) = (half(*count), half(*over));
            *count > 0
        });
    }

    fn all(&self) -> Vec<(T, u64, u64)> {
        let mut all: Vec<_> = self.names.iter().map(|(name, (count, over))| (name.clone(), *count, *over)).collect();
        all.sort_unstable();
        all
    }

    fn count(&mut self, name: T) {
        if let Some((count, _)) = self.names.get_mut(&name) {
            *count += 1;
            return;
        }
        let mut over = 0;
        if self.names.len() >= MAX_NAMES
            && let Some((rarest, count)) =
                self.names.iter().min_by_key(|(_, (count, _))| *count).map(|(name, (count, _))| (name.clone(), *count))
        {
            self.names.remove(&rarest);
            over = count;
        }
        self.names.insert(name, (over + 1, over));
    }

    fn first(&self) -> Vec<Counted> {
        let counted =
            |(name, (count, over)): (&T, &(u64, u64))| Counted { name: name.to_string(), count: *count, over: *over };
        let mut all: Vec<Counted> = self.names.iter().map(counted).collect();
        all.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        all.truncate(SHOWN);
        all
    }
}

fn date<S: Serializer>(day: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let seconds = day.saturating_mul(DAY_S).min(250_000_000_000);
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    serializer.serialize_str(date.split('T').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_kept_by_day() {
        let activity = Activity::default();
        for day in 0..9 {
            activity.answered(day * DAY_S + 5, Some(Outcome::Hit), 10, None);
            activity.answered(day * DAY_S + 6, Some(Outcome::Miss), 5, None);
            activity.answered(day * DAY_S + 7, Some(Outcome::Bypass), 1, None);
            activity.answered(day * DAY_S + 8, None, 2, None);
        }
        activity.answered(0, Some(Outcome::Stale), 100, None);
        let days = activity.lately().days;
        assert_eq!((days.len(), days[6].day), (MAX_DAYS, 2));
        assert_eq!(days[0], Day { day: 8, requests: 3, hits: 2, bytes: 118, cached_bytes: 110 });
        assert_eq!(days[1], Day { day: 7, requests: 2, hits: 1, bytes: 18, cached_bytes: 10 });
        assert_eq!(serde_json::to_value(&days[0]).unwrap()["day"], "1970-01-09");
    }

    #[test]
    fn what_was_written_is_taken_up_and_counted_on() {
        let before = Activity::default();
        let client = "10.0.0.7".parse().unwrap();
        for day in 3..5 {
            before.answered(day * DAY_S, Some(Outcome::Hit), 10, Some((format!("image-{day}"), client)));
        }
        before.failed(Failure { at: 7, path: "/v2/".to_owned(), status: 503, reason: "gone\n".to_owned() });
        let line = before.written();
        assert!(!line.contains(&b'\n'));

        let after = Activity::default();
        assert!(after.take_up(&line));
        assert_eq!((after.lately(), after.written()), (before.lately(), line));
        after.answered(4 * DAY_S, Some(Outcome::Hit), 5, Some(("image-4".to_owned(), client)));
        let lately = after.lately();
        assert_eq!(lately.days[0], Day { day: 4, requests: 2, hits: 2, bytes: 15, cached_bytes: 15 });
        assert_eq!((lately.images[0].count, lately.clients[0].count), (2, 2));
        assert_eq!(lately.images.len(), 1, "what was asked for once, yesterday, counts no more");

        for other in [&b"{}"[..], b"", b"[1]", b"{\"days\":[[1]],\"errors\":[],\"images\":[],\"clients\":[]}"] {
            let nothing = Activity::default();
            assert!(!nothing.take_up(other));
            assert!(nothing.lately().days.is_empty());
        }
    }

    #[test]
    fn the_last_fifty_errors_are_kept_the_latest_first() {
        let activity = Activity::default();
        for at in 0..60 {
            activity.failed(Failure { at, path: "/v2/".to_owned(), status: 503, reason: String::new() });
        }
        let at: Vec<u64> = activity.lately().errors.iter().map(|failure| failure.at).collect();
        assert_eq!((at.len(), at[0], at[49]), (MAX_ERRORS, 59, 10));
    }

    #[test]
    fn what_is_asked_for_most_is_found_among_any_number_of_names() {
        let activity = Activity::default();
        let client = "::ffff:10.0.0.7".parse().unwrap();
        for n in 0..1000 {
            for image in [format!("once-{n}"), "often".to_owned()] {
                activity.answered(0, Some(Outcome::Hit), 0, Some((image, client)));
            }
        }
        let Lately { images, clients, .. } = activity.lately();
        assert_eq!(images[0], Counted { name: "often".to_owned(), count: 1000, over: 0 });
        assert_eq!(clients, [Counted { name: "10.0.0.7".to_owned(), count: 2000, over: 0 }]);
        assert_eq!(images.len(), SHOWN);
        assert!(images[1..].iter().all(|image| image.count - image.over <= 1), "{images:?}");
        assert!(activity.lock().images.names.len() <= MAX_NAMES);
    }
}
