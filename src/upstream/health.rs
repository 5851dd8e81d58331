//! How one host is: a breaker for each of its parts, what is on the wire to it, and the word that goes out when that
//! changes. Never asks anything: whoever has asked tells how it went, and the probe is called when something is wrong.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, Change, Moment, Severity, State};
use super::error::{Part, UpstreamError};
use super::metrics::Meter;
use super::question::{By, Question};
use crate::clock::Clock;

/// What all hosts of one upstream share.
#[derive(Clone, Default)]
pub struct Outlook {
    /// Changes whenever a host's last outage ends.
    pub recoveries: watch::Sender<u64>,
    /// Answers that were served stale.
    pub stale: Arc<AtomicU64>,
}

/// The health of one host.
pub struct Health {
    clock: Clock,
    meter: Meter,
    host: String,
    outlook: Outlook,
    parts: Mutex<[Condition; 3]>,
    changed: Notify,
    doubted: Notify,
    is_probed: AtomicBool,
    probe: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Condition {
    breaker: Breaker,
    /// What failed last.
    failed: Option<Arc<Question>>,
    /// What was answered last, of each class.
    answered: [Option<Arc<Question>>; 3],
    wire: Wire,
    stale_before: u64,
}

/// A part that is not well, and what to ask it.
pub struct Patient {
    /// Which one.
    pub part: Part,
    /// What failed, and something else of its kind that did not.
    pub questions: Vec<Arc<Question>>,
}

impl Health {
    /// The health of `host`, which is taken to be well.
    pub fn new(host: String, meter: Meter, clock: Clock, outlook: Outlook) -> Health {
        for part in Part::ALL {
            meter.health(part, true);
        }
        Health {
            clock,
            meter,
            host,
            outlook,
            parts: Mutex::default(),
            changed: Notify::new(),
            doubted: Notify::new(),
            is_probed: AtomicBool::new(false),
            probe: OnceLock::new(),
        }
    }

    /// What begins the probe's work. Called whenever something is wrong and nobody looks into it.
    pub fn call_when_unwell(&self, begin: impl Fn() + Send + Sync + 'static) {
        // Told once, where the host is made.
        let _ = self.probe.set(Box::new(begin));
    }

    /// Leave to ask `part`, unless it is out of order.
    pub fn admit(&self, part: Part) -> Result<(), UpstreamError> {
        match self.parts()[part as usize].breaker.state() {
            State::Open { since, reason, is_sure: true } => {
                Err(UpstreamError::Down { part, since: since.unix, reason: reason.clone() })
            }
            State::Well | State::Doubtful { .. } | State::Open { is_sure: false, .. } => Ok(()),
        }
    }

    /// Returns when `part` is out of order, with the error that says so.
    pub async fn until_down(&self, part: Part) -> UpstreamError {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Err(down) = self.admit(part) {
                return down;
            }
            changed.await;
        }
    }

    /// Whether each part is above doubt.
    pub fn is_well(&self) -> [bool; 3] {
        let parts = self.parts();
        Part::ALL.map(|part| *parts[part as usize].breaker.state() == State::Well)
    }

    /// Whether any part is out of order: then nobody with a copy need wait, and other content cannot be had here.
    pub fn is_down(&self) -> bool {
        self.parts().iter().any(|condition| matches!(condition.breaker.state(), State::Open { .. }))
    }

    /// Since when a part has been out of order, the first of them, if any is; seconds since 1970.
    pub fn down_since(&self) -> Option<u64> {
        let parts = self.parts();
        let since = parts.iter().filter_map(|condition| match condition.breaker.state() {
            State::Open { since, .. } => Some(since.unix),
            State::Well | State::Doubtful { .. } => None,
        });
        since.min()
    }

    /// What is thought of `part`.
    pub fn state(&self, part: Part) -> State {
        self.parts()[part as usize].breaker.state().clone()
    }

    /// `question` goes to `part`; until what is returned is dropped, it is on the wire.
    pub fn sent(self: &Arc<Health>, part: Part, question: &Arc<Question>) -> OnWire {
        let number = self.parts()[part as usize].wire.add(self.clock.tick(), question);
        OnWire { health: self.clone(), part, number }
    }

    /// `part` has answered `question` as it should.
    pub fn succeeded(&self, part: Part, question: &Arc<Question>) {
        self.parts()[part as usize].answered[question.class() as usize] = Some(question.clone());
        self.alive(part);
    }

    /// `part` has said something that only a working one says.
    pub fn alive(&self, part: Part) {
        let now = self.now();
        let (change, stale, is_last) = {
            let mut parts = self.parts();
            let condition = &mut parts[part as usize];
            let (change, before) = (condition.breaker.succeeded(now), condition.stale_before);
            let is_open = |condition: &Condition| matches!(condition.breaker.state(), State::Open { .. });
            (change, self.outlook.stale.load(Ordering::Relaxed).saturating_sub(before), !parts.iter().any(is_open))
        };
        if change != Change::Nothing {
            self.meter.health(part, true);
        }
        if let Change::Closed { lasted } = change {
            let upstream = self.meter.upstream();
            tracing::info!(
                upstream,
                host = self.host,
                part = part.as_str(),
                duration_s = lasted.as_secs(),
                served_stale = stale,
                "an outage is over"
            );
            self.changed.notify_waiters();
            if is_last {
                self.outlook.recoveries.send_modify(|recoveries| *recoveries += 1);
            }
        }
    }

    /// `question` ended in `error`. The probe judges its own by [`Health::checked`].
    pub fn failed(&self, question: &Arc<Question>, error: &UpstreamError) {
        if question.by == By::Probe {
            return;
        }
        match Severity::of(error) {
            Some(severity) => self.fault(error.part(), severity, question, error.reason()),
            None if matches!(error, UpstreamError::Down { .. }) => {}
            None => self.alive(error.part()),
        }
    }

    /// The probe's verdict: `question` ended in `error`, and nothing else of its kind was answered.
    pub fn checked(&self, question: &Arc<Question>, error: &UpstreamError) {
        if let Some(severity) = Severity::of(error) {
            self.fault(error.part(), severity, question, error.reason());
        }
    }

    /// Each part that owes someone an answer for `patience`, and has given none since, is out of order.
    pub fn lost_patience(&self, patience: Duration) {
        let Some(begun_by) = self.clock.tick().checked_sub(patience) else { return };
        for part in Part::ALL {
            let overdue = self.parts()[part as usize].wire.unanswered(begun_by);
            if let Some(question) = overdue {
                let reason = format!("no answer within {}", humantime::format_duration(patience));
                self.fault(part, Severity::Overdue, &question, reason);
            }
        }
    }

    fn fault(&self, part: Part, severity: Severity, question: &Arc<Question>, reason: String) {
        let now = self.now();
        let change = {
            let mut parts = self.parts();
            let condition = &mut parts[part as usize];
            let change = condition.breaker.failed(severity, question.by, &question.what(), reason.clone(), now);
            if change != Change::Nothing {
                condition.failed = Some(Arc::new(question.without_flow()));
            }
            if change == Change::Opened {
                condition.stale_before = self.outlook.stale.load(Ordering::Relaxed);
            }
            change
        };
        match change {
            Change::Opened => {
                let upstream = self.meter.upstream();
                tracing::warn!(upstream, host = self.host, part = part.as_str(), reason, "an upstream is out of order");
                self.changed.notify_waiters();
            }
            Change::Confirmed => self.changed.notify_waiters(),
            Change::Doubted => self.doubted.notify_one(),
            Change::Nothing | Change::Cleared | Change::Closed { .. } => return,
        }
        self.meter.health(part, false);
        if let Some(begin) = self.probe.get()
            && !self.is_probed.swap(true, Ordering::AcqRel)
        {
            begin();
        }
    }

    // === For the probe ===

    /// The parts that are not well. If there are none, the probe that asks has ended its work.
    pub fn patients(&self) -> Vec<Patient> {
        let patients = || -> Vec<Patient> {
            let parts = self.parts();
            Part::ALL.into_iter().filter_map(|part| parts[part as usize].as_patient(part)).collect()
        };
        let mut found = patients();
        if found.is_empty() {
            self.is_probed.store(false, Ordering::Release);
            // Something may have gone wrong since the look, and have found that a probe was still there.
            found = patients();
            if !found.is_empty() && self.is_probed.swap(true, Ordering::AcqRel) {
                return Vec::new();
            }
        }
        found
    }

    /// Returns when something comes into doubt.
    pub async fn until_doubted(&self) {
        self.doubted.notified().await;
    }

    /// Whether anything is in doubt and not yet decided.
    pub fn is_doubtful(&self) -> bool {
        self.parts().iter().any(|condition| matches!(condition.breaker.state(), State::Doubtful { .. }))
    }

    fn now(&self) -> Moment {
        Moment { tick: self.clock.tick(), unix: self.clock.unix_seconds() }
    }

    fn parts(&self) -> MutexGuard<'_, [Condition; 3]> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    fn as_patient(&self, part: Part) -> Option<Patient> {
        if *self.breaker.state() == State::Well {
            return None;
        }
        let failed = self.failed.clone()?;
        let other = self.answered[failed.class() as usize].clone().filter(|other| other.what() != failed.what());
        Some(Patient { part, questions: [Some(failed), other].into_iter().flatten().collect() })
    }
}

/// Questions without an answer, the oldest first. As many as there are places on the line.
#[derive(Default)]
struct Wire {
    questions: BTreeMap<(Instant, u64), Arc<Question>>,
    sent: u64,
    answered: Option<Instant>,
}

impl Wire {
    fn add(&mut self, now: Instant, question: &Arc<Question>) -> (Instant, u64) {
        self.sent += 1;
        self.questions.insert((now, self.sent), question.clone());
        (now, self.sent)
    }

    /// The oldest question that was sent after the last answer came, and not after `begun_by`.
    fn unanswered(&self, begun_by: Instant) -> Option<Arc<Question>> {
        let mut owed = self.questions.iter().filter(|((sent, _), _)| self.answered.is_none_or(|last| *sent > last));
        owed.next().filter(|((sent, _), _)| *sent <= begun_by).map(|(_, question)| question.clone())
    }
}

/// A question that is on the wire.
pub struct OnWire {
    health: Arc<Health>,
    part: Part,
    number: (Instant, u64),
}

impl OnWire {
    /// An answer begins.
    pub fn answered(self) {
        let now = self.health.clock.tick();
        self.health.parts()[self.part as usize].wire.answered = Some(now);
    }
}

impl Drop for OnWire {
    fn drop(&mut self) {
        self.health.parts()[self.part as usize].wire.questions.remove(&self.number);
    }
}
