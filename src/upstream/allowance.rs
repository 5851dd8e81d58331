//! Whom to ask a host as, and what not to ask it now: the budgets of our accounts there, and its limits on us.
//!
//! Docker Hub has two limits (protocol 2.5): pulls, by account, for which only the GET of a manifest counts; and requests
//! of any kind, by address. Knows no password and asks nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::breaker::Moment;
use super::budget::{Budget, Limiter};
use super::error::{Part, UpstreamError};
use super::headers::RateLimit;
use super::metrics::{Kind, Meter};
use super::report::AccountReport;
use crate::clock::Clock;

/// What a 429 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Pulls.
    Pulls,
    /// Everything.
    Requests,
}

/// The allowance at one host.
pub struct Allowance {
    clock: Clock,
    meter: Meter,
    reserve: u64,
    state: Mutex<State>,
}

struct State {
    requests: Limiter,
    accounts: Vec<Account>,
}

struct Account {
    name: Option<String>,
    budget: Budget,
}

/// Which of our accounts at a host, by its place in the configuration. Without any there is one, that is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who(pub usize);

impl Allowance {
    /// The allowance of accounts with these `names` at one host.
    pub fn new(names: Vec<Option<String>>, reserve: u64, meter: Meter, clock: Clock) -> Allowance {
        let accounts = names.into_iter().map(|name| Account { name, budget: Budget::default() }).collect();
        let state = Mutex::new(State { requests: Limiter::default(), accounts });
        Allowance { clock, meter, reserve, state }
    }

    /// As whom to ask a question of `kind` now: the first account that has more than the reserve left, else the one that
    /// has most.
    pub fn choose(&self, kind: Kind) -> Result<Who, UpstreamError> {
        let (mut state, now) = (self.state(), self.clock.tick());
        if let Some(left) = state.requests.left(now) {
            return Err(limited(left));
        }
        if kind == Kind::ManifestHead
            && let Some(forgotten) = state.worth_asking(self.reserve, now)
        {
            return Ok(forgotten);
        }
        let is_open =
            |budget: &Budget| !budget.is_refused(now) && (kind != Kind::Manifest || budget.pulls.left(now).is_none());
        let open = || state.accounts.iter().enumerate().filter(|(_, account)| is_open(&account.budget));
        let ample = open().find(|(_, account)| account.budget.has_more_than(self.reserve, now));
        // Of equals the first.
        let most = || open().rev().max_by_key(|(_, account)| account.budget.remaining(now));
        if let Some((at, _)) = ample.or_else(most) {
            return Ok(Who(at));
        }
        let shortest = state.accounts.iter().filter_map(|account| account.budget.pulls.left(now)).min();
        Err(shortest.map_or(UpstreamError::AccountRefused { part: Part::Token }, limited))
    }

    /// Whether what nobody waits for may be asked.
    pub fn has_to_spare(&self) -> bool {
        let (mut state, now) = (self.state(), self.clock.tick());
        if state.requests.left(now).is_some() {
            return false;
        }
        let is_usable = |budget: &Budget| !budget.is_refused(now) && budget.pulls.left(now).is_none();
        let usable = || state.accounts.iter().map(|account| &account.budget).filter(|budget| is_usable(budget));
        if usable().any(|budget| budget.has_more_than(self.reserve, now)) {
            return true;
        }
        let mut budgets = state.accounts.iter_mut().map(|account| &mut account.budget);
        budgets.any(|budget| is_usable(budget) && budget.is_worth_asking(now))
    }

    /// Whether it wants to be asked nothing at all.
    pub fn is_closed(&self) -> bool {
        let now = self.clock.tick();
        self.state().requests.left(now).is_some()
    }

    /// `who` was told what is left.
    pub fn told(&self, who: Option<Who>, told: RateLimit) {
        let now = Moment { tick: self.clock.tick(), unix: self.clock.unix_seconds() };
        let mut state = self.state();
        let Some(budget) = state.budget(who) else { return };
        budget.told(told, now);
        let all = state.accounts.iter().filter_map(|account| account.budget.last_told());
        let (limit, remaining) =
            all.fold((0, 0), |(limit, left), (told, _)| (limit + told.limit, left + told.remaining));
        self.meter.rate_limit(limit, remaining);
    }

    /// `who` was answered 429.
    pub fn limited(&self, who: Option<Who>, limit: Limit, wish: Option<Duration>) {
        let (mut state, now) = (self.state(), self.clock.tick());
        let limiter = match limit {
            Limit::Pulls => state.budget(who).map(|budget| &mut budget.pulls),
            Limit::Requests => Some(&mut state.requests),
        };
        let Some(limiter) = limiter else { return };
        let is_news = limiter.left(now).is_none();
        limiter.limited(wish, now);
        if is_news {
            let upstream = self.meter.upstream();
            tracing::warn!(upstream, ?limit, retry_after_s = wish.map(|wish| wish.as_secs()), "an upstream limits us");
        }
    }

    /// `who` was not accepted.
    pub fn refused(&self, who: Option<Who>) {
        let now = self.clock.tick();
        if let Some(budget) = self.state().budget(who) {
            budget.refused(now);
        }
    }

    /// `who` was answered.
    pub fn succeeded(&self, who: Option<Who>, kind: Kind) {
        let (mut state, now) = (self.state(), self.clock.tick());
        state.requests.succeeded(now);
        if kind == Kind::Manifest
            && let Some(budget) = state.budget(who)
        {
            budget.pulls.succeeded(now);
        }
    }

    /// For people: each account, and until when the host wants to be left alone.
    pub fn report(&self) -> (Vec<AccountReport>, Option<u64>) {
        let (state, now, unix) = (self.state(), self.clock.tick(), self.clock.unix_seconds());
        let until = |limiter: &Limiter| limiter.left(now).map(|left| unix + left.as_secs());
        let accounts = state.accounts.iter().map(|Account { name, budget }| {
            let told = budget.last_told();
            AccountReport {
                name: name.clone().unwrap_or_else(|| "anonymous".into()),
                limit: told.map(|(told, _)| told.limit),
                remaining: told.map(|(told, _)| told.remaining),
                window_s: told.and_then(|(told, _)| told.window).map(|window| window.as_secs()),
                told: told.map(|(_, at)| at.unix),
                limited_until: until(&budget.pulls),
                is_refused: budget.is_refused(now),
            }
        });
        (accounts.collect(), until(&state.requests))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn budget(&mut self, who: Option<Who>) -> Option<&mut Budget> {
        who.and_then(|Who(at)| self.accounts.get_mut(at)).map(|account| &mut account.budget)
    }

    /// An account with nothing to spare of which nobody has told anything for long.
    fn worth_asking(&mut self, reserve: u64, now: Instant) -> Option<Who> {
        let is_worth = |account: &mut Account| {
            let budget = &mut account.budget;
            !budget.is_refused(now) && !budget.has_more_than(reserve, now) && budget.is_worth_asking(now)
        };
        self.accounts.iter_mut().position(is_worth).map(Who)
    }
}

fn limited(left: Duration) -> UpstreamError {
    UpstreamError::RateLimited { part: Part::Registry, retry_after: Some(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::metrics::Metrics;

    const RESERVE: u64 = 10;

    fn allowance(names: &[&str]) -> (Allowance, Clock) {
        let (clock, figures) = (Clock::system(), prometheus::Registry::new());
        let meter = Meter::new(Metrics::new(&figures), "hub.test".into());
        let names = names.iter().map(|&name| Some(name.to_owned())).collect();
        (Allowance::new(names, RESERVE, meter, clock.clone()), clock)
    }

    fn tell(allowance: &Allowance, at: usize, remaining: u64) {
        let told = RateLimit { limit: 100, remaining, window: Some(Duration::from_secs(21_600)) };
        allowance.told(Some(Who(at)), told);
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_account_with_budget_left_is_used() {
        for (told, expected) in [
            ([None, None], 0),
            ([Some(11), None], 0),
            ([Some(10), None], 1),
            ([Some(10), Some(11)], 1),
            ([Some(3), Some(9)], 1),
            ([Some(9), Some(9)], 0),
            ([Some(0), Some(0)], 0),
        ] {
            let (allowance, _) = allowance(&["a", "b"]);
            for (at, remaining) in told.into_iter().enumerate() {
                remaining.into_iter().for_each(|remaining| tell(&allowance, at, remaining));
            }
            assert_eq!(allowance.choose(Kind::Manifest).unwrap(), Who(expected), "{told:?}");
            assert_eq!(allowance.choose(Kind::Blob).unwrap(), Who(expected), "{told:?}");
        }
    }

    #[test]
    fn a_pull_limit_stops_pulls_and_a_limit_on_requests_everything() {
        let (allowance, clock) = allowance(&["a", "b"]);
        allowance.limited(Some(Who(0)), Limit::Pulls, Some(seconds(60)));
        assert_eq!(allowance.choose(Kind::Manifest).unwrap(), Who(1));
        assert_eq!(allowance.choose(Kind::ManifestHead).unwrap(), Who(0));
        assert!(allowance.has_to_spare());
        allowance.limited(Some(Who(1)), Limit::Pulls, Some(seconds(90)));
        let error = allowance.choose(Kind::Manifest).unwrap_err();
        let UpstreamError::RateLimited { retry_after: Some(left), .. } = error else { panic!("{error}") };
        assert!(left <= seconds(60) && left > seconds(50), "what is left for the first of them");
        assert!(allowance.choose(Kind::Blob).is_ok() && !allowance.has_to_spare() && !allowance.is_closed());
        clock.advance(seconds(61));
        assert_eq!(allowance.choose(Kind::Manifest).unwrap(), Who(0));
        allowance.limited(Some(Who(0)), Limit::Requests, None);
        for kind in [Kind::Manifest, Kind::ManifestHead, Kind::Blob, Kind::Tags] {
            assert!(matches!(allowance.choose(kind), Err(UpstreamError::RateLimited { .. })));
        }
        assert!(allowance.is_closed() && !allowance.has_to_spare());
        clock.advance(seconds(31));
        assert!(allowance.choose(Kind::Tags).is_ok());
    }

    #[test]
    fn a_refused_account_rests_and_another_is_used() {
        let (allowance, clock) = allowance(&["a", "b"]);
        allowance.refused(Some(Who(0)));
        assert_eq!(allowance.choose(Kind::ManifestHead).unwrap(), Who(1));
        allowance.refused(Some(Who(1)));
        assert!(matches!(allowance.choose(Kind::Blob), Err(UpstreamError::AccountRefused { .. })));
        clock.advance(seconds(21));
        assert_eq!(allowance.choose(Kind::Blob).unwrap(), Who(0));
    }

    #[test]
    fn what_is_kept_for_those_who_wait_is_not_to_spare_and_one_head_finds_out_again() {
        let (allowance, clock) = allowance(&["a"]);
        assert!(allowance.has_to_spare());
        tell(&allowance, 0, RESERVE);
        assert!(!allowance.has_to_spare());
        assert!(allowance.choose(Kind::Manifest).is_ok(), "who waits gets the rest");
        clock.advance(seconds(301));
        assert!(allowance.has_to_spare());
        assert!(!allowance.has_to_spare(), "one is enough");
        tell(&allowance, 0, RESERVE + 1);
        assert!(allowance.has_to_spare());
    }

    #[test]
    fn a_report_names_accounts_and_says_until_when() {
        let (allowance, _) = allowance(&["me"]);
        tell(&allowance, 0, 42);
        allowance.limited(Some(Who(0)), Limit::Pulls, Some(seconds(3600)));
        let (accounts, limited_until) = allowance.report();
        let me = &accounts[0];
        assert_eq!((me.name.as_str(), me.limit, me.remaining, me.window_s), ("me", Some(100), Some(42), Some(21_600)));
        assert!(me.told.is_some() && me.limited_until > me.told && limited_until.is_none());
    }
}
