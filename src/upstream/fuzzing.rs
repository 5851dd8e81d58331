//! What an upstream's words pass through, for who throws random words at it.

use hyper::HeaderMap;
use hyper::header::{CONTENT_RANGE, HeaderName, HeaderValue, LINK, LOCATION, WWW_AUTHENTICATE};

use super::challenge::{self, Challenge};
use super::headers;
use super::token::Token;
use crate::clock::Clock;

fn one(name: HeaderName, value: &[u8]) -> HeaderMap {
    // What no header can hold does not come this far.
    HeaderValue::from_bytes(value).map(|value| HeaderMap::from_iter([(name, value)])).unwrap_or_default()
}

/// `WWW-Authenticate`: what is taken for a realm stood there.
pub fn challenge(value: &[u8]) {
    if let Some(Challenge::Bearer { realm, .. }) = challenge::strongest(&one(WWW_AUTHENTICATE, value)) {
        assert!(realm.len() <= value.len());
    }
}

/// `Content-Range`: not empty, and inside the whole.
pub fn content_range(value: &[u8]) {
    if let Some(range) = headers::content_range(&one(CONTENT_RANGE, value)) {
        assert!(range.start < range.end && range.total.is_none_or(|total| range.end <= total), "{range:?}");
    }
}

/// `Link`, and the other headers that are read.
pub fn link(value: &[u8]) {
    let _ = headers::has_next_page(&one(LINK, value));
    for name in ["content-length", "content-type", "retry-after", "docker-content-digest", "ratelimit-limit"] {
        let all = one(HeaderName::from_static(name), value);
        let _ = (headers::content_length(&all), headers::essence(&all), headers::is_page(&all));
        let _ = (headers::digest(&all), headers::rate_limit(&all), headers::retry_after(&all, 1_800_000_000));
    }
    let _ = one(LOCATION, value);
}

/// A token service's answer: a token that lives a minute to an hour.
pub fn token_answer(body: &[u8]) {
    let asked = Clock::system().tick();
    if let Ok(token) = Token::read(body, asked) {
        assert!(!token.is_due(asked) && token.kept(asked).is_some());
    }
}
