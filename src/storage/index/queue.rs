//! What waits for the index's owner: recorded changes, and what a walk over the files hands in. Never touches the
//! database.
//!
//! Recording never waits. At most [`CAPACITY`] changes wait here; a use is dropped when half that many do, and any other
//! change when all do, but then the whole index is compared with the files afterwards, so that nothing is lost by it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::change::Change;
use super::fault::Fault;

/// How many changes may wait; at some 200 bytes each, a dozen megabytes.
pub(super) const CAPACITY: usize = 1 << 16;
/// How many changes the owner takes at once.
const ROUND: usize = 256;

/// How the owner is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Apply everything first, and say in the epoch file that it was.
    Close,
    /// Stop where it stands, as a killed process would.
    Abandon,
}

/// What a walk over the files hands in.
pub(super) enum Walked {
    Found(Vec<Change>),
    Finished(io::Result<()>),
}

/// What the owner takes at once.
#[derive(Default)]
pub(super) struct Round {
    pub(super) changes: Vec<Change>,
    pub(super) walked: Option<Walked>,
    /// Changes were dropped, or someone asked: compare with the files.
    pub(super) compare: bool,
    /// A reader met this.
    pub(super) fault: Option<Fault>,
    /// No change waits any more, and none will come.
    pub(super) end: Option<End>,
}

#[derive(Default)]
struct Lanes {
    changes: VecDeque<Change>,
    walk: u64,
    walked: Option<Walked>,
    compare: bool,
    fault: Option<Fault>,
    end: Option<End>,
    /// The owner works on a round.
    in_hand: bool,
    /// The index is open, and not being compared with the files; or the owner has given that up for now.
    settled: bool,
    /// The owner has ended; whether it closed the index cleanly.
    ended: Option<bool>,
}

/// The lanes on which work comes to the owner.
#[derive(Default)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    /// Rung for the owner.
    work: Condvar,
    /// Rung for those who wait for the owner.
    progress: Condvar,
}

impl Queue {
    /// Takes in a change, at once.
    pub(super) fn record(&self, change: Change) {
        let mut lanes = self.lock();
        if lanes.end.is_some() {
            return;
        }
        let waiting = lanes.changes.len();
        match change {
            Change::Used { .. } if waiting >= CAPACITY / 2 => return,
            _ if waiting >= CAPACITY => lanes.compare = true,
            change => lanes.changes.push_back(change),
        }
        self.work.notify_one();
    }

    /// Asks for a comparison with the files.
    pub(super) fn compare(&self) {
        self.lock().compare = true;
        self.work.notify_one();
    }

    /// Tells the owner what a reader met.
    pub(super) fn report(&self, fault: Fault) {
        self.lock().fault = Some(fault);
        self.work.notify_one();
    }

    /// Ends the owner. What is recorded from now on is dropped.
    pub(super) fn end(&self, how: End) {
        let mut lanes = self.lock();
        lanes.end.get_or_insert(how);
        self.work.notify_one();
        self.progress.notify_all();
    }

    /// How the owner is to end, if it is.
    pub(super) fn ending(&self) -> Option<End> {
        self.lock().end
    }

    /// Waits until everything recorded is applied and the index is neither opened nor compared any more. Says whether it
    /// came to that in time.
    pub(super) fn settle(&self, within: Duration) -> bool {
        self.wait_for(within, |lanes| {
            let waiting = lanes.in_hand || lanes.compare || lanes.fault.is_some() || !lanes.changes.is_empty();
            (lanes.ended.is_some() || (lanes.settled && !waiting)).then_some(())
        })
        .is_some()
    }

    /// Waits for the owner's end. Says whether the index was closed cleanly; `None` if the owner still works.
    pub(super) fn wait_for_end(&self, within: Duration) -> Option<bool> {
        self.wait_for(within, |lanes| lanes.ended)
    }

    /// For a walk's thread: hands in what it found, once there is room. Breaks off when nobody wants this walk any more.
    pub(super) fn hand_in(&self, walk: u64, walked: Walked) -> ControlFlow<()> {
        let mut lanes = self.lock();
        while lanes.walk == walk && lanes.walked.is_some() && lanes.end.is_none() {
            lanes = self.progress.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
        if lanes.walk != walk || lanes.end.is_some() {
            return ControlFlow::Break(());
        }
        lanes.walked = Some(walked);
        self.work.notify_one();
        ControlFlow::Continue(())
    }

    /// For the owner: from now on only a new walk may hand in, whose number is returned.
    pub(super) fn expect_walk(&self) -> u64 {
        let mut lanes = self.lock();
        lanes.walk += 1;
        lanes.walked = None;
        self.progress.notify_all();
        lanes.walk
    }

    /// For the owner: a database was opened, so what readers met in the last one is over.
    pub(super) fn opened(&self) {
        self.lock().fault = None;
    }

    /// For the owner: whether it has opened the index and compared it, as far as it could.
    pub(super) fn set_settled(&self, settled: bool) {
        self.lock().settled = settled;
    }

    /// For the owner: the last round is done; waits for the next, no longer than `patience`.
    pub(super) fn take(&self, patience: Duration) -> Round {
        let mut lanes = self.lock();
        lanes.in_hand = false;
        self.progress.notify_all();
        if lanes.is_idle() {
            (lanes, _) = self.work.wait_timeout(lanes, patience).unwrap_or_else(PoisonError::into_inner);
        }
        let count = lanes.changes.len().min(ROUND);
        let abandoned = lanes.end == Some(End::Abandon);
        let round = Round {
            changes: lanes.changes.drain(..count).collect(),
            walked: lanes.walked.take(),
            compare: mem::take(&mut lanes.compare),
            fault: lanes.fault.take(),
            end: lanes.end.filter(|_| count == 0 || abandoned),
        };
        lanes.in_hand = true;
        self.progress.notify_all();
        round
    }

    /// For the owner's thread: it is over.
    pub(super) fn ended(&self, cleanly: bool) {
        let mut lanes = self.lock();
        lanes.end.get_or_insert(End::Abandon);
        lanes.ended = Some(cleanly);
        lanes.changes.clear();
        self.progress.notify_all();
    }

    fn wait_for<T>(&self, within: Duration, done: impl Fn(&Lanes) -> Option<T>) -> Option<T> {
        let waiting = |lanes: &mut Lanes| done(lanes).is_none();
        let (lanes, _) =
            self.progress.wait_timeout_while(self.lock(), within, waiting).unwrap_or_else(PoisonError::into_inner);
        done(&lanes)
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // Nothing here panics while it holds the lock, and a half-made change of these lanes would be harmless.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn is_idle(&self) -> bool {
        self.changes.is_empty() && self.walked.is_none() && !self.compare && self.fault.is_none() && self.end.is_none()
    }
}
