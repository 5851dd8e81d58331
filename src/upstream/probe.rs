//! The probe: one task per host that finds out whether what went wrong is over, so that no client has to.
//!
//! It begins when a part is in doubt or out of order, asks again what was asked in vain, and ends when all parts are
//! well. It never keeps a client from a place on the line.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::asker::Asker;
use super::breaker::Severity;
use super::credentials::Credentials;
use super::error::{Part, Phase, UpstreamError};
use super::health::Patient;
use super::metrics::Kind;
use super::question::Question;
use crate::clock::Clock;
use crate::task;

/// From a doubt to the first check: who asked is often quicker, and a success settles it.
const FIRST_CHECK: Duration = Duration::from_millis(50);
/// From there to the second one.
const SECOND_CHECK: Duration = Duration::from_millis(75);
/// Longest wait for the answer to a check.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

/// Pauses between checks of what is out of order.
struct Backoff {
    next: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(10);

    fn new(random: fastrand::Rng) -> Backoff {
        Backoff { next: Backoff::FIRST, random }
    }

    /// The next pause: twice the one before, a fifth more or less, so that many mirrors do not come back as one.
    fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.8 + 0.4 * self.random.f64());
        self.next = (self.next * 2).min(Backoff::LONGEST);
        pause
    }

    fn reset(&mut self) {
        self.next = Backoff::FIRST;
    }
}

/// Looks after one host.
pub struct Probe {
    asker: Weak<Asker>,
    credentials: Credentials,
    clock: Clock,
    limit: Duration,
}

impl Probe {
    /// A probe that asks through `asker`, each time for no longer than `patience`. Its task ends with the last user of
    /// the host.
    pub fn look_after(asker: &Arc<Asker>, credentials: Credentials, clock: Clock, patience: Duration) {
        let (health, asker) = (asker.line().health().clone(), Arc::downgrade(asker));
        let limit = patience.min(LONGEST_CHECK);
        health.call_when_unwell(move || {
            let probe = Probe { asker: asker.clone(), credentials: credentials.clone(), clock: clock.clone(), limit };
            task::spawn("probe", probe.run());
        });
    }

    async fn run(self) {
        let mut backoff = Backoff::new(fastrand::Rng::new());
        let mut pause = match self.asker.upgrade() {
            Some(asker) if asker.line().health().is_doubtful() => FIRST_CHECK,
            _ => backoff.pause(),
        };
        loop {
            self.rest(pause).await;
            let Some(asker) = self.asker.upgrade() else { return };
            let health = asker.line().health();
            let patients = health.patients();
            if patients.is_empty() {
                return;
            }
            let sick = patients.len();
            let was_asked = self.visit(&asker, patients).await;
            if health.is_well().iter().filter(|is_well| !**is_well).count() < sick {
                backoff.reset();
            }
            pause = if was_asked && health.is_doubtful() { SECOND_CHECK } else { backoff.pause() };
        }
    }

    /// Waits for so long, or until something new is in doubt.
    async fn rest(&self, pause: Duration) {
        let Some(health) = self.asker.upgrade().map(|asker| asker.line().health().clone()) else { return };
        tokio::select! {
            () = self.clock.sleep(pause) => {}
            () = health.until_doubted() => self.clock.sleep(pause.min(FIRST_CHECK)).await,
        }
    }

    /// Asks each part that is not well. The CDN is reached through the registry, so it comes last.
    async fn visit(&self, asker: &Asker, patients: Vec<Patient>) -> bool {
        if asker.line().allowance().is_closed() {
            return false;
        }
        let Some(_place) = asker.line().place_to_spare() else { return false };
        let (through_registry, others): (Vec<_>, Vec<_>) =
            patients.into_iter().partition(|patient| patient.part == Part::Cdn);
        futures_util::future::join_all(others.iter().map(|patient| self.examine(asker, patient))).await;
        for patient in &through_registry {
            if asker.line().health().is_well()[Part::Registry as usize] {
                self.examine(asker, patient).await;
            }
        }
        true
    }

    /// Asks `patient`'s questions until one is answered. One image that upstream has lost is no outage, so the last
    /// thing that was answered is asked for as well.
    async fn examine(&self, asker: &Asker, patient: &Patient) {
        let (health, part) = (asker.line().health(), patient.part);
        let mut failure: Option<(Arc<Question>, UpstreamError)> = None;
        let mut instead = None;
        for question in &patient.questions {
            let check = Arc::new(question.check());
            match self.ask(asker, part, &check).await {
                Ok(()) => return health.succeeded(part, &check),
                Err(error) => {
                    if is_odd_for_a_head(&error) {
                        instead = instead.or(check.instead_of_head());
                    }
                    failure.get_or_insert((check, error));
                }
            }
        }
        if let Some(check) = instead.map(Arc::new)
            && self.ask(asker, part, &check).await.is_ok()
        {
            return health.alive(part);
        }
        if let Some((check, error)) = failure {
            health.checked(&check, &error);
        }
    }

    /// Whether `part` is alive, as far as `check` shows.
    async fn ask(&self, asker: &Asker, part: Part, check: &Arc<Question>) -> Result<(), UpstreamError> {
        let asking = async {
            if part == Part::Token {
                return asker.check_token(&Arc::new(check.for_token()), &self.credentials).await;
            }
            let mut answer = asker.ask(check, &self.credentials).await?;
            if matches!(check.kind, Kind::Blob | Kind::Tags | Kind::Referrers) {
                answer.next().await?;
            }
            Ok(())
        };
        match timeout(self.limit, asking).await.unwrap_or(Err(UpstreamError::TimedOut { part, phase: Phase::Head })) {
            // Where nothing is known any more, bare text says this, too.
            Err(UpstreamError::NotFound) if check.kind == Kind::Tags => {
                Err(UpstreamError::Status { part, status: 404 })
            }
            // It is the token service that is asked about itself; the registry has spoken.
            Err(error) if error.part() == Part::Token && part != Part::Token => Ok(()),
            Err(error) if Severity::of(&error).is_none() => Ok(()),
            asked => asked,
        }
    }
}

/// Where HEAD is answered otherwise than GET, for hours, that is no reason to give up both (protocol 2.6).
fn is_odd_for_a_head(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Status { status: 400..=499, .. } | UpstreamError::Invalid { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_seconds_and_are_never_quite_the_same() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(7));
        for expected in [1, 2, 4, 8, 10, 10] {
            let (pause, expected) = (backoff.pause().as_secs_f64(), f64::from(expected));
            assert!((expected * 0.8..=expected * 1.2).contains(&pause), "{pause} for {expected}");
        }
        assert_ne!(backoff.pause(), backoff.pause());
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(1200));
    }
}
