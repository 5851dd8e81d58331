//! Comparing the index with the files, in both directions, while changes go on. Building it anew is the same, begun with
//! nothing.
//!
//! A walk over the files, on a thread of its own, hands in what it finds, and that is filled in. When the walk is
//! complete, rows that it did not come across are removed. A row that a recorded change decided since the walk began is
//! left alone by both: the walk may have passed before the file changed. What was seen and what was decided are kept as
//! fingerprints, some 16 bytes per row, for as long as the comparison takes. Should two keys ever share one, a row stays that
//! the next comparison removes.
//!
//! A walk meets links in the order of repositories, so their holders would come in no order at all, each on another page
//! of a database that is larger than its cache. They are put off, and written many at a time in the order of their keys.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::apply::{apply, decides, fill_in, hold, put_link};
use super::change::{Change, Truth};
use super::fault::Fault;
use super::key::{self, Key};
use super::ledger::Ledger;
use super::queue::Walked;
use super::rows::message;
use super::state::Shared;
use super::table::Table;
use super::thread;

/// How many changes a walk hands in at once, and how many rows are looked at between two rounds of changes.
const SLICE: usize = 512;
/// How many holders are put off before they are written, at some 150 bytes each. In tests few, so that it comes to that.
const PUT_OFF: usize = if cfg!(test) { 3 } else { 1 << 17 };

/// A comparison under way.
pub(super) struct Comparison {
    hasher: RandomState,
    seen: HashSet<u64>,
    decided: HashSet<u64>,
    walked: u64,
    /// Holders that are put off, …
    put_off: BTreeSet<Vec<u8>>,
    /// … and those that are being written.
    holders: BTreeSet<Vec<u8>>,
    /// The walk has come to its end.
    is_walked: bool,
    /// Where the search for rows without a file goes on, once all is written; nowhere if there were no rows to begin with.
    sweep: Option<Vec<u8>>,
}

impl Comparison {
    /// Begins one, with an index that `has_rows` or none: starts the walk.
    pub(super) fn begin(shared: &Arc<Shared>, truth: &Arc<dyn Truth>, has_rows: bool) -> io::Result<Comparison> {
        let (number, shared, truth) = (shared.queue.expect_walk(), Arc::clone(shared), Arc::clone(truth));
        thread::run("larder-index-walk", move || walk(&shared, truth.as_ref(), number))?;
        Ok(Comparison {
            hasher: RandomState::new(),
            seen: HashSet::new(),
            decided: HashSet::new(),
            walked: 0,
            put_off: BTreeSet::new(),
            holders: BTreeSet::new(),
            is_walked: false,
            sweep: has_rows.then(|| key::FIRST.to_vec()),
        })
    }

    /// How much the walk has told of so far.
    pub(super) fn walked(&self) -> u64 {
        self.walked
    }

    /// A recorded change is about to be applied.
    pub(super) fn note(&mut self, change: &Change) {
        if let Some(key) = decides(change) {
            self.decided.insert(self.hasher.hash_one(key));
        }
        if let Change::Unlinked { repository, digest } = change {
            let holder = key::holder(digest, repository);
            self.put_off.remove(&holder);
            self.holders.remove(&holder);
        }
    }

    /// Fills in what the walk found.
    pub(super) fn fill_in(&mut self, ledger: &mut Ledger, changes: &[Change]) -> Result<(), Fault> {
        self.walked += changes.len() as u64;
        for change in changes {
            if let Some(key) = decides(change) {
                let print = self.hasher.hash_one(key);
                if self.sweep.is_some() {
                    self.seen.insert(print);
                }
                if self.decided.contains(&print) {
                    continue;
                }
            }
            match change {
                // As `fill_in`, but for its holder.
                Change::Linked { repository, digest, link } => {
                    put_link(ledger, repository, digest, link)?;
                    self.put_off.insert(key::holder(digest, repository));
                }
                _ => fill_in(ledger, change)?,
            }
        }
        Ok(())
    }

    /// The walk is complete: what it did not come across can go.
    pub(super) fn walk_is_complete(&mut self) {
        self.is_walked = true;
    }

    /// Whether there is work that waits for nobody.
    pub(super) fn is_at_work(&self) -> bool {
        self.is_walked || !self.holders.is_empty() || self.put_off.len() >= PUT_OFF
    }

    /// Does some more of that: writes holders, then removes rows without a file. True when all is done.
    pub(super) fn go_on(&mut self, ledger: &mut Ledger) -> Result<bool, Fault> {
        if self.holders.is_empty() && (self.is_walked || self.put_off.len() >= PUT_OFF) {
            self.holders = mem::take(&mut self.put_off);
        }
        if self.holders.is_empty() {
            return if self.is_walked { self.sweep(ledger) } else { Ok(false) };
        }
        // More than come in meanwhile.
        for _ in 0..2 * SLICE {
            let Some(key) = self.holders.pop_first() else { break };
            hold(ledger, key)?;
        }
        Ok(false)
    }

    fn sweep(&mut self, ledger: &mut Ledger) -> Result<bool, Fault> {
        let Some(from) = &self.sweep else { return Ok(true) };
        let rows = ledger.rows().scan(Bound::Excluded(from), &key::LAST).take(SLICE);
        let keys = rows.map(|row| row.map(|(key, _)| key)).collect::<Result<Vec<_>, Fault>>()?;
        for key in &keys {
            self.look_at(ledger, key)?;
        }
        if let Some(last) = keys.last() {
            self.sweep = Some(last.to_vec());
        }
        Ok(keys.len() < SLICE)
    }

    fn look_at(&self, ledger: &mut Ledger, key: &[u8]) -> Result<(), Fault> {
        let print = self.hasher.hash_one(key);
        let known = self.seen.contains(&print) || self.decided.contains(&print);
        match Key::parse(key).ok_or_else(|| Fault::unreadable(key))? {
            Key::Holder(digest, repository) => {
                let link = key::link(&repository, &digest);
                let print = self.hasher.hash_one(&link);
                // What the walk saw and nothing decided since is there: asking for each would be to read the links in no order.
                let is_held = self.seen.contains(&print) && !self.decided.contains(&print);
                if is_held || ledger.get(&link)?.is_some() { Ok(()) } else { ledger.remove(key) }
            }
            Key::Blob(_) | Key::Link(..) | Key::Tag(..) if known => Ok(()),
            Key::Link(repository, digest) => apply(ledger, &Change::Unlinked { repository, digest }),
            Key::Blob(_) | Key::Tag(..) => ledger.remove(key),
        }
    }
}

fn walk(shared: &Shared, truth: &dyn Truth, number: u64) {
    let hand_in = |walked| shared.queue.hand_in(number, walked);
    let mut found = Vec::with_capacity(SLICE);
    let walked = catch_unwind(AssertUnwindSafe(|| {
        truth.walk(&mut |change| {
            found.push(change);
            if found.len() < SLICE { ControlFlow::Continue(()) } else { hand_in(Walked::Found(mem::take(&mut found))) }
        })
    }));
    let result = walked.unwrap_or_else(|panic| Err(io::Error::other(message(panic.as_ref()).to_owned())));
    if hand_in(Walked::Found(found)).is_continue() {
        // If nobody wants to know, that is all right too.
        let _unwanted = hand_in(Walked::Finished(result));
    }
}
