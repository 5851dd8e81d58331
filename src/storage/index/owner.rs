//! The one thread that writes to the index: it opens it, applies what was recorded, compares it with the files when that is
//! due, and heals it. Never decides what the files are, and never ends because sled did.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::clock::Clock;

use super::apply::apply;
use super::comparison::Comparison;
use super::epoch::Epoch;
use super::fault::Fault;
use super::open;
use super::opening::{Opening, Up};
use super::queue::{End, Round, Walked};
use super::rows::message;
use super::state::{Shared, State};

/// Writes are made durable at the latest so long after they were made, …
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// … or when there are so many of them.
const FLUSH_AT: usize = 1000;
/// With nothing to do, the owner looks up so often.
const IDLE: Duration = Duration::from_secs(5);
/// So many faults within so long, and the index is left alone for a while.
const MAX_FAULTS: u32 = 3;
const FAULTS_WITHIN: Duration = Duration::from_secs(300);
/// For how long, at first and at most.
const REST: Duration = Duration::from_secs(5);
const MAX_REST: Duration = Duration::from_secs(60);
/// Readers hold the database for the length of one question.
const READER_PAUSE: Duration = Duration::from_millis(1);
const READER_LIMIT: u32 = 2000;

/// The index's only writer.
pub(super) struct Owner {
    opening: Opening,
    shared: Arc<Shared>,
    clock: Clock,
    ballast: u64,
    up: Option<Up>,
    comparison: Option<Comparison>,
    /// Another comparison is due after this one.
    compare_again: bool,
    last_flush: Instant,
    faults: u32,
    first_fault: Instant,
    rest: Duration,
    /// When to try again what failed.
    retry: Option<Instant>,
}

impl Owner {
    pub(super) fn new(opening: Opening, ballast: u64) -> Owner {
        let (shared, clock) = (Arc::clone(&opening.shared), opening.clock.clone());
        let now = clock.tick();
        Owner {
            opening,
            shared,
            clock,
            ballast,
            up: None,
            comparison: None,
            compare_again: false,
            last_flush: now,
            faults: 0,
            first_fault: now,
            rest: REST,
            retry: None,
        }
    }

    /// Works until the end, whatever happens.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let cleanly = catch_unwind(AssertUnwindSafe(|| self.work())).unwrap_or_else(|panic| {
            let reason = format!("its owner panicked: {}", message(panic.as_ref()));
            warn!(reason, "the index is lost until the next start");
            shared.set_rows(None);
            shared.set_state(State::Degraded { reason });
            false
        });
        shared.queue.ended(cleanly);
    }

    fn work(&mut self) -> bool {
        self.bring_up();
        loop {
            let round = self.shared.queue.take(self.patience());
            if let Some(end) = round.end {
                return self.finish(end, round.compare);
            }
            if let Err(fault) = self.turn(round) {
                self.heal(fault);
            }
            if self.retry.is_some_and(|at| self.clock.tick() >= at) {
                self.retry = None;
                if self.up.is_some() { self.compare() } else { self.bring_up() }
            }
        }
    }

    /// How long there is nothing to do if nothing comes.
    fn patience(&self) -> Duration {
        if self.comparison.as_ref().is_some_and(Comparison::is_at_work) {
            return Duration::ZERO;
        }
        let unflushed = self.up.as_ref().is_some_and(|up| up.ledger.unflushed() > 0);
        let retry = self.retry.map_or(IDLE, |at| at.saturating_duration_since(self.clock.tick()));
        if unflushed { FLUSH_AFTER.min(retry) } else { IDLE.min(retry) }
    }

    /// Does what a round brings. Without a database it is dropped: a comparison with the files follows the next opening.
    fn turn(&mut self, round: Round) -> Result<(), Fault> {
        let Some(up) = &mut self.up else { return Ok(()) };
        if let Some(fault) = round.fault {
            return Err(fault);
        }
        for change in &round.changes {
            if let Some(comparison) = &mut self.comparison {
                comparison.note(change);
            }
            apply(&mut up.ledger, change)?;
        }
        self.compare_again |= round.compare;
        self.go_on_comparing(round.walked)?;
        if self.compare_again && self.comparison.is_none() {
            self.compare();
        }
        self.flush_if_due()
    }

    fn go_on_comparing(&mut self, walked: Option<Walked>) -> Result<(), Fault> {
        let (Some(up), Some(comparison)) = (&mut self.up, &mut self.comparison) else { return Ok(()) };
        match walked {
            Some(Walked::Found(changes)) => {
                comparison.fill_in(&mut up.ledger, &changes)?;
                self.shared.set_state(State::Rebuilding { walked: comparison.walked() });
            }
            Some(Walked::Finished(Ok(()))) => comparison.walk_is_complete(),
            Some(Walked::Finished(Err(error))) => {
                self.give_up_comparing(&format!("the files could not be read: {error}"));
                return Ok(());
            }
            None => {}
        }
        if comparison.go_on(&mut up.ledger)? {
            info!(walked = comparison.walked(), "the index says what the files say");
            self.comparison = None;
            if !self.compare_again {
                self.ready()?;
            }
        }
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), Fault> {
        let Some(up) = &mut self.up else { return Ok(()) };
        self.shared.set_totals(up.ledger.tally());
        // A process that ends before its index says what the files say compares it anew, durable or not.
        if self.comparison.is_some() {
            return Ok(());
        }
        let due = self.clock.tick().saturating_duration_since(self.last_flush) >= FLUSH_AFTER;
        if up.ledger.unflushed() >= FLUSH_AT || (due && up.ledger.unflushed() > 0) {
            up.ledger.flush()?;
            self.last_flush = self.clock.tick();
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<(), Fault> {
        if let Some(up) = &mut self.up {
            up.ledger.flush()?;
            self.shared.set_totals(up.ledger.tally());
        }
        self.opening.place.lay_ballast(self.ballast);
        self.rest = REST;
        self.shared.set_state(State::Ready);
        self.shared.queue.set_settled(true);
        Ok(())
    }

    fn compare(&mut self) {
        (self.compare_again, self.retry) = (false, None);
        self.shared.queue.set_settled(false);
        self.shared.set_state(State::Rebuilding { walked: 0 });
        let has_rows = self.up.as_ref().is_some_and(|up| up.ledger.tally().sum.rows > 0);
        match Comparison::begin(&self.shared, &self.opening.truth, has_rows) {
            Ok(comparison) => self.comparison = Some(comparison),
            Err(error) => self.give_up_comparing(&format!("no thread to walk over the files: {error}")),
        }
    }

    fn give_up_comparing(&mut self, reason: &str) {
        warn!(reason, "the index could not be compared with the files");
        self.comparison = None;
        self.rest_for(reason);
    }

    fn bring_up(&mut self) {
        match self.opening.open() {
            Ok(up) => self.start(up),
            Err(fault) => self.heal(fault),
        }
    }

    fn start(&mut self, up: Up) {
        self.shared.set_totals(up.ledger.tally());
        self.shared.set_rows(Some(Arc::clone(up.ledger.rows())));
        self.shared.queue.opened();
        let complete = up.complete;
        self.up = Some(up);
        if !complete {
            self.compare();
        } else if let Err(fault) = self.ready() {
            self.heal(fault);
        }
    }

    /// Opens the database again, or makes a new one, as the fault demands; gives up for a while when that keeps failing.
    fn heal(&mut self, mut fault: Fault) {
        self.let_go();
        while self.shared.queue.ending().is_none() {
            warn!(reason = fault.reason(), "the index has failed");
            let (again, last) = self.strike();
            if !again {
                return self.rest_for(fault.reason());
            }
            let opened = match &fault {
                Fault::Damaged(reason) => self.opening.anew(reason),
                // A disk that cannot read this file may yet be able to write another.
                Fault::Disk(reason) if last => self.opening.anew(reason),
                Fault::Disk(_) | Fault::Full(_) => {
                    self.opening.place.give_up_ballast();
                    self.opening.open()
                }
            };
            match opened {
                // What was recorded meanwhile, or not yet durable, is in the files.
                Ok(up) => return self.start(Up { complete: false, ..up }),
                Err(next) => fault = next,
            }
        }
    }

    /// Counts a fault. Says whether to go on trying, and whether this is the last try.
    fn strike(&mut self) -> (bool, bool) {
        let now = self.clock.tick();
        if now.saturating_duration_since(self.first_fault) > FAULTS_WITHIN {
            self.faults = 0;
        }
        if self.faults == 0 {
            self.first_fault = now;
        }
        self.faults += 1;
        (self.faults <= MAX_FAULTS, self.faults == MAX_FAULTS)
    }

    fn rest_for(&mut self, reason: &str) {
        self.faults = 0;
        self.retry = Some(self.clock.tick() + self.rest);
        self.rest = (self.rest * 2).min(MAX_REST);
        self.shared.set_state(State::Degraded { reason: reason.to_owned() });
        self.shared.queue.set_settled(true);
    }

    /// Takes the database out of everyone's hands and closes it. False if it stays open somewhere.
    fn let_go(&mut self) -> bool {
        self.comparison = None;
        self.shared.set_rows(None);
        let Some(up) = self.up.take() else { return true };
        let mut rows = up.ledger.into_rows();
        for _ in 0..READER_LIMIT {
            match Arc::try_unwrap(rows) {
                Ok(rows) => return open::close(rows),
                Err(read) => rows = read,
            }
            sleep(READER_PAUSE);
        }
        false
    }

    /// The epoch file comes last: it says that everything else is done.
    fn finish(&mut self, end: End, compare: bool) -> bool {
        let complete = self.shared.state() == State::Ready && !compare && end == End::Close;
        let epoch = self.up.as_mut().filter(|_| complete).and_then(|up| {
            up.ledger.flush().ok()?;
            Some(Epoch { closed: Some(up.ledger.tally().sum), ..up.epoch.clone() })
        });
        let closed = self.let_go();
        self.shared.set_state(State::Closed);
        epoch.is_some_and(|epoch| closed && epoch.write(&self.opening.place.epoch()).is_ok())
    }
}
