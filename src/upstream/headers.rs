//! What the headers of an upstream's answer say. Pure; whether it is acceptable is decided elsewhere.

use std::str::FromStr;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, RETRY_AFTER};

use crate::oci::Digest;

/// No upstream makes us wait longer: Docker Hub counts its pulls over so long.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How much may be pulled, as Docker Hub last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Pulls in a window.
    pub limit: u64,
    /// Those that are left of it.
    pub remaining: u64,
    /// How long a window is, if that was said.
    pub window: Option<Duration>,
}

/// `bytes a-b/total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Length of the whole, unless it was `*`.
    pub total: Option<u64>,
}

impl FromStr for ContentRange {
    type Err = ();

    fn from_str(text: &str) -> Result<ContentRange, ()> {
        let (unit, range) = text.trim().split_once(' ').ok_or(())?;
        let (range, total) = range.trim().split_once('/').ok_or(())?;
        let (first, last) = range.split_once('-').ok_or(())?;
        let (start, end) = (number(first)?, number(last)?.checked_add(1).ok_or(())?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        if !unit.eq_ignore_ascii_case("bytes") || start >= end || total.is_some_and(|total| end > total) {
            return Err(());
        }
        Ok(ContentRange { start, end, total })
    }
}

/// The `Content-Range`, if there is one and it makes sense.
pub fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    text(headers, CONTENT_RANGE)?.parse().ok()
}

/// The `Content-Length`.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, CONTENT_LENGTH)?).ok()
}

/// The `Content-Type`, as it was written.
pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    text(headers, CONTENT_TYPE)
}

/// The `Content-Type` without parameters, in lower case; empty without one.
pub fn essence(headers: &HeaderMap) -> String {
    content_type(headers).unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the body is a page for people: never a registry's own, often that of something in front of it.
pub fn is_page(headers: &HeaderMap) -> bool {
    matches!(essence(headers).as_str(), "text/html" | "application/xhtml+xml")
}

/// What the body is packed in, if it is.
pub fn encoding(headers: &HeaderMap) -> Option<&str> {
    text(headers, CONTENT_ENCODING).filter(|encoding| !matches!(encoding.trim(), "" | "identity"))
}

/// The `Docker-Content-Digest`: a claim.
pub fn digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.parse().ok()
}

/// The rate limit, if the answer says both its halves: `100;w=21600`.
pub fn rate_limit(headers: &HeaderMap) -> Option<RateLimit> {
    let pulls = |name| number(text(headers, name)?.split(';').next()?).ok();
    let window = text(headers, LIMIT)?.split(';').find_map(|param| param.trim().strip_prefix("w="));
    let window = window.and_then(|seconds| number(seconds).ok()).map(Duration::from_secs);
    Some(RateLimit { limit: pulls(LIMIT)?, remaining: pulls(REMAINING)?, window })
}

/// `Retry-After` in seconds, or as the moment in Unix time that some of Docker Hub's answers carry. The form with a
/// date counts as absent.
pub fn retry_after(headers: &HeaderMap, unix_now: u64) -> Option<Duration> {
    let seconds = number(text(headers, RETRY_AFTER)?).ok()?;
    let is_moment = seconds > 1_000_000_000;
    let seconds = if is_moment { seconds.saturating_sub(unix_now) } else { seconds };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Whether a `Link` names a next page (RFC 8288).
pub fn has_next_page(headers: &HeaderMap) -> bool {
    headers.get_all(LINK).iter().filter_map(|line| line.to_str().ok()).any(|line| {
        // A target may hold commas, so links are told apart by what follows each target.
        line.split('<').skip(1).filter_map(|link| link.split_once('>')).any(|(_, params)| is_next(params))
    })
}

fn is_next(params: &str) -> bool {
    params.split([';', ',']).filter_map(|param| param.split_once('=')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("rel")
            && value.trim().trim_matches('"').split(' ').any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Digits only: the standard parser would take a sign.
fn number(text: &str) -> Result<u64, ()> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().map_err(|_| ()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_content_range_is_whole_or_nothing() {
        let range = |start, end, total| Ok(ContentRange { start, end, total });
        assert_eq!("bytes 0-0/1".parse(), range(0, 1, Some(1)));
        assert_eq!(" Bytes 5-9/* ".parse(), range(5, 10, None));
        for text in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes */10",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes -1-5/10",
            "bytes +1-5/10",
            "bytes 0-/10",
            "items 0-9/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-9/1e3",
        ] {
            assert_eq!(text.parse::<ContentRange>(), Err(()), "{text}");
        }
    }

    #[test]
    fn the_rate_limit_is_read_with_its_window() {
        let both = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "20;w=21600")]);
        assert_eq!(
            rate_limit(&both),
            Some(RateLimit { limit: 100, remaining: 20, window: Some(Duration::from_secs(21_600)) })
        );
        let plain = headers(&[("ratelimit-limit", "200"), ("ratelimit-remaining", "0")]);
        assert_eq!(rate_limit(&plain), Some(RateLimit { limit: 200, remaining: 0, window: None }));
        for bad in ["", ";w=1", "many", "-1;w=1", "99999999999999999999"] {
            let half = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", bad)]);
            assert_eq!(rate_limit(&half), None, "{bad}");
        }
    }

    #[test]
    fn a_wish_to_wait_is_bounded() {
        let wait = |text| retry_after(&headers(&[("retry-after", text)]), 1_700_000_000);
        assert_eq!(wait("30"), Some(Duration::from_secs(30)));
        assert_eq!(wait("1700000060"), Some(Duration::from_secs(60)));
        assert_eq!(wait("1600000000"), Some(Duration::ZERO));
        assert_eq!(wait("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        for (line, expected) in [
            ("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", true),
            ("</v2/a?x=1,2>; title=x; REL=next", true),
            ("</a>; rel=prev, </b>; rel=\"last next\"", true),
            ("</a>; rel=prev", false),
            ("</a?rel=next>; rel=\"prev\"", false),
            ("</a>; relation=next", false),
            ("next", false),
            ("", false),
        ] {
            assert_eq!(has_next_page(&headers(&[("link", line)])), expected, "{line}");
        }
    }

    #[test]
    fn content_is_described_whatever_its_case() {
        let page = headers(&[("content-type", "Text/HTML; charset=utf-8"), ("content-encoding", "gzip")]);
        assert!(is_page(&page));
        assert_eq!(encoding(&page), Some("gzip"));
        let plain = headers(&[("content-encoding", "identity"), ("content-length", "+5")]);
        assert_eq!((encoding(&plain), content_length(&plain), is_page(&plain)), (None, None, false));
    }
}
