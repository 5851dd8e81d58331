//! Whether one part of a host is in working order. Pure: time and failures come in, what changed goes out; nothing is
//! asked, counted or logged here.
//!
//! A time-out opens the breaker at once, because the next client would wait as long. A fast failure only puts the part
//! in doubt: one request in thirty may fail for hours (protocol 2.6), and that is no outage. Someone's lost patience opens
//! it for those who have a copy; to the others a slow answer is better than none.

use std::time::{Duration, Instant};

use super::error::{Part, Phase, UpstreamError};
use super::question::By;

/// Different questions of clients that fail one after another before nobody waits for the probe's word.
const QUESTIONS: usize = 3;
/// Checks of the probe that fail one after another before it is believed.
const CHECKS: u8 = 2;

/// How bad a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Someone with a copy at hand did not wait for it any longer. It may only be slow.
    Overdue,
    /// It cost a time limit, and would cost the next one, too.
    Slow,
    /// It came at once.
    Fast,
}

impl Severity {
    /// How bad `error` is for its part; `None`: it says nothing against it.
    pub fn of(error: &UpstreamError) -> Option<Severity> {
        match error {
            UpstreamError::TimedOut { phase: Phase::Connect | Phase::Head, .. } => Some(Severity::Slow),
            // One download that stands still is often alone with that, and is taken up again at once: that must be let
            // through. If it is not alone, what takes it up, or the probe, runs into a time limit before the answer.
            UpstreamError::TimedOut { phase: Phase::Body, .. } => Some(Severity::Fast),
            // It works, and does not know us; or what we already know.
            UpstreamError::AccountRefused { .. } | UpstreamError::Down { .. } => None,
            // An object store that lacks one object.
            UpstreamError::Status { part: Part::Cdn, status: 404 | 410 } => None,
            error => error.is_outage().then_some(Severity::Fast),
        }
    }
}

/// When, for lifetimes and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic.
    pub tick: Instant,
    /// Seconds since 1970.
    pub unix: u64,
}

/// What is thought of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It does what it should.
    #[default]
    Well,
    /// Something failed. Clients ask on, and the probe looks into it.
    Doubtful {
        /// Since the first failure.
        since: Moment,
        /// The last one.
        reason: String,
        /// What clients have asked in vain.
        asked: Vec<String>,
        /// How often the probe has.
        checks: u8,
    },
    /// It is out of order: only the probe asks.
    Open {
        /// Since the first failure.
        since: Moment,
        /// The one that was believed.
        reason: String,
        /// Otherwise it may only be slow: whoever has a copy does not wait for it, and whoever has none asks on.
        is_sure: bool,
    },
}

/// What a failure or a success has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anyone must know.
    Nothing,
    /// The part came into doubt.
    Doubted,
    /// An outage began.
    Opened,
    /// What might only have been slow is out of order.
    Confirmed,
    /// There was no outage.
    Cleared,
    /// The outage is over.
    Closed {
        /// How long it was.
        lasted: Duration,
    },
}

/// The breaker of one part.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
}

impl Breaker {
    /// What is thought of the part.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// `what` was asked in vain, by `by`.
    pub fn failed(&mut self, severity: Severity, by: By, what: &str, reason: String, now: Moment) -> Change {
        let (since, mut asked, mut checks) = match &self.state {
            State::Open { is_sure: false, since, .. } if severity != Severity::Overdue => {
                self.state = State::Open { since: *since, reason, is_sure: true };
                return Change::Confirmed;
            }
            State::Open { .. } => return Change::Nothing,
            State::Well => (now, Vec::new(), 0),
            State::Doubtful { since, asked, checks, .. } => (*since, asked.clone(), *checks),
        };
        match by {
            // One image that upstream has lost is asked for again and again, and says nothing about the others.
            By::Client if !asked.iter().any(|known| known == what) => asked.push(what.to_owned()),
            By::Client => {}
            By::Probe => checks += 1,
        }
        if severity != Severity::Fast || asked.len() >= QUESTIONS || checks >= CHECKS {
            self.state = State::Open { since, reason, is_sure: severity != Severity::Overdue };
            return Change::Opened;
        }
        let was_well = self.state == State::Well;
        self.state = State::Doubtful { since, reason, asked, checks };
        if was_well { Change::Doubted } else { Change::Nothing }
    }

    /// The part did what it should.
    pub fn succeeded(&mut self, now: Moment) -> Change {
        match std::mem::take(&mut self.state) {
            State::Well => Change::Nothing,
            State::Doubtful { .. } => Change::Cleared,
            State::Open { since, .. } => Change::Closed { lasted: now.tick.saturating_duration_since(since.tick) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    enum Step {
        Client(&'static str),
        Check,
        TimeOut,
        Overdue,
        Success,
    }
    use Step::{Check, Client, Overdue, Success, TimeOut};

    fn play(steps: &[Step]) -> (Breaker, Vec<Change>) {
        let (clock, mut breaker) = (Clock::system(), Breaker::default());
        let start = clock.tick();
        let changes = steps.iter().enumerate().map(|(n, step)| {
            let now = Moment { tick: start + Duration::from_secs(n as u64), unix: n as u64 };
            let reason = format!("step {n}");
            match step {
                Client(what) => breaker.failed(Severity::Fast, By::Client, what, reason, now),
                Check => breaker.failed(Severity::Fast, By::Probe, "check", reason, now),
                TimeOut => breaker.failed(Severity::Slow, By::Client, "slow", reason, now),
                Overdue => breaker.failed(Severity::Overdue, By::Client, "overdue", reason, now),
                Success => breaker.succeeded(now),
            }
        });
        let changes = changes.collect();
        (breaker, changes)
    }

    #[test]
    fn what_opens_and_what_does_not() {
        use Change::{Cleared, Closed, Confirmed, Doubted, Nothing, Opened};
        let lasted = |seconds| Closed { lasted: Duration::from_secs(seconds) };
        for (steps, expected) in [
            (&[TimeOut, TimeOut, Success][..], &[Opened, Nothing, lasted(2)][..]),
            (&[Overdue, Overdue, Success], &[Opened, Nothing, lasted(2)]),
            (&[Overdue, TimeOut, TimeOut, Overdue], &[Opened, Confirmed, Nothing, Nothing]),
            (&[Overdue, Check, Success], &[Opened, Confirmed, lasted(2)]),
            (&[Client("a"), Success, Client("b"), Success], &[Doubted, Cleared, Doubted, Cleared]),
            (&[Client("a"), Check, Check, Success], &[Doubted, Nothing, Opened, lasted(3)]),
            (&[Client("a"), Client("b"), Client("c")], &[Doubted, Nothing, Opened]),
            (&[Client("a"), Client("a"), Client("a"), Client("a")], &[Doubted, Nothing, Nothing, Nothing]),
            (&[Client("a"), Check, Success, Client("a"), Check], &[Doubted, Nothing, Cleared, Doubted, Nothing]),
            (&[Client("a"), TimeOut, Check, Client("b")], &[Doubted, Opened, Nothing, Nothing]),
            (&[Check, Check, Success, Success], &[Doubted, Opened, lasted(2), Nothing]),
        ] {
            assert_eq!(play(steps).1, expected);
        }
    }

    #[test]
    fn an_outage_began_with_its_first_failure_and_keeps_its_reason() {
        let (breaker, _) = play(&[Client("a"), Check, Check, Check]);
        let State::Open { since, reason, .. } = breaker.state() else { panic!("{breaker:?}") };
        assert_eq!((since.unix, reason.as_str()), (0, "step 2"));
    }

    #[test]
    fn what_a_failure_says_against_its_part() {
        let part = Part::Registry;
        let reason = String::new;
        for (error, expected) in [
            (UpstreamError::TimedOut { part, phase: Phase::Connect }, Some(Severity::Slow)),
            (UpstreamError::TimedOut { part, phase: Phase::Head }, Some(Severity::Slow)),
            (UpstreamError::TimedOut { part, phase: Phase::Body }, Some(Severity::Fast)),
            (UpstreamError::Unreachable { part, reason: reason() }, Some(Severity::Fast)),
            (UpstreamError::Cut { part, reason: reason() }, Some(Severity::Fast)),
            (UpstreamError::Invalid { part, reason: reason() }, Some(Severity::Fast)),
            (UpstreamError::Forbidden { part, reason: reason() }, Some(Severity::Fast)),
            (UpstreamError::Status { part, status: 404 }, Some(Severity::Fast)),
            (UpstreamError::Status { part, status: 503 }, Some(Severity::Fast)),
            (UpstreamError::Status { part: Part::Cdn, status: 403 }, Some(Severity::Fast)),
            (UpstreamError::Status { part: Part::Cdn, status: 404 }, None),
            (UpstreamError::NotFound, None),
            (UpstreamError::Refused { status: 401 }, None),
            (UpstreamError::RateLimited { part, retry_after: None }, None),
            (UpstreamError::OutOfRange { part }, None),
            (UpstreamError::AccountRefused { part }, None),
            (UpstreamError::Down { part, since: 0, reason: reason() }, None),
        ] {
            assert_eq!(Severity::of(&error), expected, "{error}");
        }
    }
}
