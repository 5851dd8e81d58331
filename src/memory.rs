//! Bounded memory: moka's caches, with a hash that a hit can afford.
//!
//! A hit asks half a dozen of them by names and digests, which clients choose: the hash has a secret in it, another one in each
//! memory. Nothing here outlives the process.

use std::hash::Hash;

use foldhash::quality::RandomState;
use moka::sync::Cache;

/// What is remembered, as far as there is room. Clones share it.
pub type Memory<K, V> = Cache<K, V, RandomState>;

/// Room for so many entries. What is seldom asked for goes first.
pub fn of_entries<K, V>(most: u64) -> Memory<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(most).build_with_hasher(RandomState::default())
}

/// Room for entries that `weigh` so much together.
pub fn of_weight<K, V>(most: u64, weigh: impl Fn(&K, &V) -> u32 + Send + Sync + 'static) -> Memory<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(most).weigher(weigh).build_with_hasher(RandomState::default())
}
