//! The tags that were served stale in an outage and are to be confirmed after it: which, how much used, whose turn is next.
//!
//! Pure, but for a lock. While a registry's tags are being worked off, nobody waits for one that has not had its turn:
//! otherwise the first minute after an outage is the worst of all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::oci::{Registry, Repository, Tag};

/// Tags that are noted, over all registries; the rest is confirmed when somebody asks, as ever.
const MAX_TAGS: usize = 10_000;

type Key = (Repository, Tag);

#[derive(Clone, Copy, Debug)]
struct Entry {
    uses: u64,
    // When upstream last confirmed it, in seconds since 1970.
    confirmed_at: u64,
}

#[derive(Debug, Default)]
struct State {
    tags: HashMap<Key, Entry>,
    at_work: Vec<Registry>,
}

/// The list.
#[derive(Debug, Default)]
pub struct Backlog {
    state: Mutex<State>,
}

impl Backlog {
    /// Notes that a tag was served stale in an outage.
    pub fn note(&self, key: &Key, confirmed_at: u64) {
        let mut state = self.lock();
        if let Some(entry) = state.tags.get_mut(key) {
            entry.uses += 1;
        } else if state.tags.len() < MAX_TAGS {
            state.tags.insert(key.clone(), Entry { uses: 1, confirmed_at });
        }
    }

    /// Whether a tag is to be served stale because its turn has not come, or the question has not been answered.
    pub fn is_queued(&self, key: &Key) -> bool {
        let state = self.lock();
        state.at_work.contains(&key.0.registry) && state.tags.contains_key(key)
    }

    /// Begins to work off a registry's tags: their order, most used first, then longest unconfirmed.
    pub fn begin(&self, registry: &Registry) -> Vec<Key> {
        let mut state = self.lock();
        let ours = state.tags.iter().filter(|(key, _)| key.0.registry == *registry);
        let mut order: Vec<(Key, Entry)> = ours.map(|(key, entry)| (key.clone(), *entry)).collect();
        order.sort_unstable_by_key(|(_, entry)| (u64::MAX - entry.uses, entry.confirmed_at));
        if !state.at_work.contains(registry) {
            state.at_work.push(registry.clone());
        }
        order.into_iter().map(|(key, _)| key).collect()
    }

    /// A tag has had its turn, or was confirmed without one.
    pub fn remove(&self, key: &Key) {
        let mut state = self.lock();
        state.tags.remove(key);
    }

    /// Ends the work on a registry's tags: whoever asks for one that is left asks upstream again.
    pub fn end(&self, registry: &Registry) {
        self.lock().at_work.retain(|other| other != registry);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(registry: &str, tag: &str) -> Key {
        (Repository { registry: registry.parse().unwrap(), name: "a/b".parse().unwrap() }, tag.parse().unwrap())
    }

    #[test]
    fn the_most_used_come_first_and_then_those_that_waited_longest() {
        let backlog = Backlog::default();
        for (tag, uses, confirmed_at) in [("old", 1, 10), ("older", 1, 5), ("popular", 3, 20)] {
            for _ in 0..uses {
                backlog.note(&key("docker.io", tag), confirmed_at);
            }
        }
        backlog.note(&key("ghcr.io", "other"), 1);
        let order = backlog.begin(&"docker.io".parse().unwrap());
        assert_eq!(order, ["popular", "older", "old"].map(|tag| key("docker.io", tag)));
    }

    #[test]
    fn a_tag_waits_only_while_its_registry_is_worked_off_and_until_its_turn() {
        let (backlog, registry) = (Backlog::default(), "docker.io".parse().unwrap());
        let (first, second) = (key("docker.io", "first"), key("docker.io", "second"));
        backlog.note(&first, 1);
        backlog.note(&second, 2);
        assert!(!backlog.is_queued(&first), "the outage is not over");
        backlog.begin(&registry);
        assert!(backlog.is_queued(&first) && !backlog.is_queued(&key("docker.io", "unknown")));
        backlog.remove(&first);
        assert!(!backlog.is_queued(&first) && backlog.is_queued(&second));
        backlog.end(&registry);
        assert!(!backlog.is_queued(&second), "nothing waits for ever");
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let backlog = Backlog::default();
        for n in 0..MAX_TAGS + 10 {
            backlog.note(&key("docker.io", &format!("t{n}")), 1);
        }
        assert_eq!(backlog.begin(&"docker.io".parse().unwrap()).len(), MAX_TAGS);
    }
}
