//! What an account may still ask, as it was told, and for how long it must ask nothing. Pure: time comes in.

use std::time::{Duration, Instant};

use super::breaker::Moment;
use super::headers::RateLimit;

/// What was told is taken to be so for so long; then one question may find out again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// A window that was not told: Docker Hub's.
const WINDOW: Duration = Duration::from_secs(6 * 60 * 60);
/// First pause after a 429 that does not say how long, and the longest; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10 * 60));
/// How long an account that was refused is not used: passwords are mended, and token services have been wrong.
const REFUSED: Duration = Duration::from_secs(20);

/// Keeps away from who has said 429.
#[derive(Debug, Default)]
pub struct Limiter {
    until: Option<Instant>,
    pauses: u32,
}

impl Limiter {
    /// A 429 came, with a wish or without.
    pub fn limited(&mut self, wish: Option<Duration>, now: Instant) {
        // Those that were under way together are one.
        let is_news = self.left(now).is_none();
        let (first, longest) = PAUSES;
        let pause = wish.map_or_else(
            || first.saturating_mul(1 << self.pauses.min(10)).min(longest),
            |wish| wish.max(Duration::from_secs(1)),
        );
        if is_news {
            self.pauses += 1;
            self.until = Some(now + pause);
        } else if wish.is_some() {
            self.until = self.until.max(Some(now + pause));
        }
    }

    /// How long it still lasts.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// An answer came. One that was under way when the limit was reached does not lift it.
    pub fn succeeded(&mut self, now: Instant) {
        if self.left(now).is_none() {
            *self = Limiter::default();
        }
    }
}

/// One account's budget.
#[derive(Debug, Default)]
pub struct Budget {
    told: Option<(RateLimit, Moment)>,
    /// When it was last asked again because what was told was old.
    asked_again: Option<Instant>,
    /// For what counts as a pull.
    pub pulls: Limiter,
    refused: Option<Instant>,
}

impl Budget {
    /// What is left was told.
    pub fn told(&mut self, told: RateLimit, now: Moment) {
        self.told = Some((told, now));
    }

    /// What was told last, and when.
    pub fn last_told(&self) -> Option<(RateLimit, Moment)> {
        self.told
    }

    /// What is left; `None`: nobody has told, or its window is over.
    pub fn remaining(&self, now: Instant) -> Option<u64> {
        let (told, at) = self.told?;
        let is_over = now.saturating_duration_since(at.tick) >= told.window.unwrap_or(WINDOW);
        (!is_over).then_some(told.remaining)
    }

    /// Whether more than `reserve` pulls are left, as far as is known.
    pub fn has_more_than(&self, reserve: u64, now: Instant) -> bool {
        self.remaining(now).is_none_or(|remaining| remaining > reserve)
    }

    /// Whether what was told is old, and nobody is finding out: whoever is told so does.
    pub fn is_worth_asking(&mut self, now: Instant) -> bool {
        let told = self.told.map(|(_, at)| at.tick);
        let last = told.max(self.asked_again);
        let is_old = last.is_none_or(|last| now.saturating_duration_since(last) >= FRESH);
        if is_old {
            self.asked_again = Some(now);
        }
        is_old
    }

    /// The account was not accepted.
    pub fn refused(&mut self, now: Instant) {
        self.refused = Some(now + REFUSED);
    }

    /// Whether it was not accepted just now.
    pub fn is_refused(&self, now: Instant) -> bool {
        self.refused.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_limit_lasts_as_long_as_it_says_or_longer_each_time() {
        let (clock, mut limiter) = (Clock::system(), Limiter::default());
        let mut now = clock.tick();
        limiter.limited(Some(seconds(90)), now);
        limiter.limited(None, now);
        assert_eq!(limiter.left(now + seconds(89)), Some(seconds(1)));
        limiter.succeeded(now + seconds(89));
        assert_eq!(limiter.left(now + seconds(89)), Some(seconds(1)), "that answer was under way");
        assert_eq!(limiter.left(now + seconds(90)), None);
        limiter.succeeded(now + seconds(90));
        now += seconds(100);
        for expected in [30, 60, 120, 240, 480, 600, 600] {
            limiter.limited(None, now);
            limiter.limited(None, now);
            assert_eq!(limiter.left(now), Some(seconds(expected)));
            now += seconds(expected);
        }
        limiter.succeeded(now);
        limiter.limited(None, now);
        assert_eq!(limiter.left(now), Some(seconds(30)), "a success starts the pauses anew");
        now += seconds(30);
        limiter.limited(Some(Duration::ZERO), now);
        assert_eq!(limiter.left(now), Some(seconds(1)), "never not at all");
    }

    #[test]
    fn what_was_told_holds_for_its_window_and_is_asked_again_once_in_a_while() {
        let (clock, mut budget) = (Clock::system(), Budget::default());
        let start = clock.tick();
        assert!(budget.has_more_than(10, start), "unknown is unlimited");
        let told = |remaining| RateLimit { limit: 100, remaining, window: Some(seconds(3600)) };
        budget.told(told(10), Moment { tick: start, unix: 0 });
        assert!(!budget.has_more_than(10, start) && budget.has_more_than(9, start));
        assert!(!budget.is_worth_asking(start + seconds(299)));
        assert!(budget.is_worth_asking(start + seconds(300)));
        assert!(!budget.is_worth_asking(start + seconds(301)), "one question is enough");
        assert!(budget.is_worth_asking(start + seconds(600)));
        assert!(!budget.has_more_than(10, start + seconds(3599)));
        assert!(budget.has_more_than(10, start + seconds(3600)));
    }
}
