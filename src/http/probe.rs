//! The probe of `larder doctor`: a pull of a name that nobody has, and whether it arrived.
//!
//! Doctor lets an engine pull `library/larder-probe-<nonce>` and asks `/v2/_larder/probe/<nonce>`, an extension as the
//! specification has them ("Extensions"). Nobody upstream is ever asked for such a name. Who asks must know the nonce,
//! and is told nothing but that it arrived, by what user agent, and whether a proxy stood in between.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Response};
use serde::Serialize;

use super::answer::{Answer, finish};
use super::body;
use super::error::ApiError;
use super::nonce::Nonce;
use crate::clock::Clock;
use crate::oci::ErrorCode;

/// Most arrivals that are remembered; the oldest goes first. A flood of them can only make a doctor say "not arrived".
const MAX_ARRIVALS: usize = 1024;
/// How long one is remembered.
const LIFETIME: Duration = Duration::from_secs(600);
/// Most of a user agent that is kept, in characters.
const MAX_AGENT: usize = 200;

/// What proxies add to requests that they pass on.
const OF_PROXIES: [HeaderName; 3] = [header::VIA, header::FORWARDED, HeaderName::from_static("x-forwarded-for")];

struct Arrival {
    nonce: Nonce,
    when: Instant,
    agent: String,
    via_proxy: bool,
}

/// Which probes have arrived lately.
pub struct Arrivals {
    clock: Clock,
    seen: Mutex<VecDeque<Arrival>>,
}

/// What is told of one. The contract with `cli/doctor`.
#[derive(Serialize)]
struct Told<'a> {
    arrived: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    /// Whether a proxy passed the probe on.
    #[serde(skip_serializing_if = "Option::is_none")]
    via_proxy: Option<bool>,
    /// Whether one passed this question on: then the proxy is in front of everyone.
    asked_via_proxy: bool,
}

impl Arrivals {
    /// None yet.
    pub fn new(clock: Clock) -> Arrivals {
        Arrivals { clock, seen: Mutex::new(VecDeque::new()) }
    }

    /// Notes that a probe is here, and what it is told.
    pub fn note(&self, nonce: Nonce, headers: &HeaderMap) -> ApiError {
        let now = self.clock.tick();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|old| old.nonce != nonce && now.saturating_duration_since(old.when) < LIFETIME);
        if seen.len() >= MAX_ARRIVALS {
            seen.pop_front();
        }
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let agent = agent.chars().take(MAX_AGENT).collect();
        seen.push_back(Arrival { nonce, when: now, agent, via_proxy: is_passed_on(headers) });
        ApiError::new(ErrorCode::ManifestUnknown, "the probe of larder doctor has arrived; there is no such image")
    }

    /// Whether a probe was here.
    ///
    /// # Errors
    /// None but of the building of answers.
    pub fn tell(&self, nonce: Nonce, headers: &HeaderMap, method: &Method) -> Result<Answer, ApiError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.tick();
        let is_it = |one: &&Arrival| one.nonce == nonce && now.saturating_duration_since(one.when) < LIFETIME;
        let arrival = seen.iter().find(is_it);
        let told = Told {
            arrived: arrival.is_some(),
            agent: arrival.map(|arrival| arrival.agent.as_str()),
            via_proxy: arrival.map(|arrival| arrival.via_proxy),
            asked_via_proxy: is_passed_on(headers),
        };
        let text = serde_json::to_vec(&told).map_err(|error| ApiError::new(ErrorCode::Unknown, error.to_string()))?;
        let builder = Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::CONTENT_LENGTH, text.len());
        finish(builder, if method == Method::HEAD { body::empty() } else { body::full(text) }).map(Answer::plain)
    }
}

fn is_passed_on(headers: &HeaderMap) -> bool {
    OF_PROXIES.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_bounded_in_number_and_in_time() {
        let clock = Clock::system();
        let arrivals = Arrivals::new(clock.clone());
        let headers = HeaderMap::new();
        let len = || arrivals.seen.lock().unwrap().len();
        let nonce = |n: usize| Nonce::parse(&format!("{n:032x}")).unwrap();
        for n in 0..MAX_ARRIVALS + 10 {
            arrivals.note(nonce(n), &headers);
        }
        assert_eq!(len(), MAX_ARRIVALS);
        let first = arrivals.seen.lock().unwrap().front().unwrap().nonce;
        assert_eq!(first, nonce(10), "the oldest went first");
        clock.advance(LIFETIME);
        arrivals.note(nonce(1), &headers);
        assert_eq!(len(), 1, "what is old goes when something new comes");
    }
}
