//! What time it is: the only place that asks the system, so that a test can move time by hand.
//!
//! Never decides anything. Lifetimes are measured on [`Clock::tick`], which no wall-clock jump can shorten or stretch;
//! [`Clock::wall`] is for what is written down and shown. Who sleeps by this clock wakes when it is moved.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// The time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicU64>,
    moved: Arc<Notify>,
}

impl Clock {
    /// The system's time, until someone calls [`Clock::advance`].
    pub fn system() -> Clock {
        Clock::default()
    }

    /// Monotonic time, for lifetimes and durations.
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub fn tick(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    /// Wall-clock time, for people and for files.
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub fn wall(&self) -> SystemTime {
        SystemTime::now() + self.ahead()
    }

    /// Wall-clock time in whole seconds since 1970.
    pub fn unix_seconds(&self) -> u64 {
        self.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Moves this clock and its clones forward.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    /// Returns when so much time has passed on this clock.
    pub async fn sleep(&self, how_long: Duration) {
        let until = self.tick() + how_long;
        loop {
            let mut moved = pin!(self.moved.notified());
            // Before the look at the time, so that no move is missed between the look and the wait.
            moved.as_mut().enable();
            let left = until.saturating_duration_since(self.tick());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = moved => {}
            }
        }
    }

    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together() {
        let clock = Clock::system();
        let (clone, before) = (clock.clone(), clock.tick());
        clock.advance(Duration::from_secs(3600));
        assert!(clone.tick() - before >= Duration::from_secs(3600));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved() {
        let clock = Clock::system();
        let mut sleep = Box::pin(clock.sleep(Duration::from_secs(3600)));
        assert!(futures_util::poll!(sleep.as_mut()).is_pending());
        clock.advance(Duration::from_secs(1800));
        assert!(futures_util::poll!(sleep.as_mut()).is_pending());
        clock.advance(Duration::from_secs(1800));
        sleep.await;
    }
}
