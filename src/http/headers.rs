//! The headers of answers and the two request headers that decide anything (protocol.md, section 9).

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Builder;

use crate::cache::Stale;
use crate::oci::{Digest, RangeHeader};

/// The legacy header by which clients of old recognise a registry.
pub const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Its value.
pub const API_VERSION_VALUE: HeaderValue = HeaderValue::from_static("registry/2.0");
/// The digest of what is served.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The registry that an `ns` was taken for.
pub const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// That a list of referrers was filtered.
pub const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// How the answer came about.
pub const CACHE: HeaderName = HeaderName::from_static("x-larder-cache");
/// What the request is called in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// More headers than an answer has, with hyper's own: so the map is made once and does not grow.
const ROOM: usize = 12;

/// How long an answer holds at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Asked for by digest.
    Immutable,
    /// Asked for by tag.
    Changing,
}

/// The headers that content of a digest has, on GET, HEAD and 304 alike.
pub fn content(mut builder: Builder, digest: &Digest, lifetime: Lifetime) -> Builder {
    let etag = Bytes::from(etag(digest));
    let lifetime = match lifetime {
        Lifetime::Immutable => IMMUTABLE,
        Lifetime::Changing => ASK_AGAIN,
    };
    if let Some(headers) = builder.headers_mut() {
        headers.reserve(ROOM);
        // One text for both: the digest is what stands between the quotes. Neither is ever refused.
        for (name, text) in [(CONTENT_DIGEST, etag.slice(1..etag.len() - 1)), (header::ETAG, etag)] {
            headers.extend(HeaderValue::from_maybe_shared(text).ok().map(|value| (name, value)));
        }
        headers.insert(header::CACHE_CONTROL, lifetime);
    }
    builder
}

/// The strong validator of a digest's content. Never grows: a digest has at most 135 characters.
fn etag(digest: &Digest) -> String {
    let mut etag = String::with_capacity(140);
    etag.push('"');
    digest.push_to(&mut etag);
    etag.push('"');
    etag
}

/// Says that an answer may be old, and why. The one form of `Warning` that the specification allows has code 299.
pub fn stale(builder: Builder, stale: Option<&Stale>) -> Builder {
    let Some(stale) = stale else { return builder };
    let builder = builder.header(header::WARNING, format!("299 - \"{stale}\""));
    match stale.age {
        Some(age) => builder.header(header::AGE, age.as_secs()),
        None => builder,
    }
}

/// Whether the client says that it has `digest` already (RFC 9110, 13.1.2).
pub fn has(headers: &HeaderMap, digest: &Digest) -> bool {
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    let etag = etag(digest);
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// The one range that is asked for, if it is one, and if the client's idea of the content (`If-Range`) is `digest`.
pub fn range(headers: &HeaderMap, digest: &Digest) -> Option<RangeHeader> {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return None };
    let same = headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag(digest).as_bytes());
    if same { range.to_str().ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn an_etag_is_recognised_alone_in_a_list_and_weak() {
        let digest = Digest::sha256(b"x");
        for (value, expected) in [
            (format!("\"{digest}\""), true),
            (format!("\"a\", W/\"{digest}\""), true),
            ("*".to_owned(), true),
            (digest.to_string(), false),
            ("\"a\"".to_owned(), false),
        ] {
            assert_eq!(has(&headers(&[(header::IF_NONE_MATCH, &value)]), &digest), expected, "{value}");
        }
    }

    #[test]
    fn a_range_counts_only_alone_and_for_the_same_content() {
        let digest = Digest::sha256(b"x");
        let same = format!("\"{digest}\"");
        assert!(range(&headers(&[(header::RANGE, "bytes=0-1")]), &digest).is_some());
        assert!(range(&headers(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, &same)]), &digest).is_some());
        assert!(range(&headers(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"y\"")]), &digest).is_none());
        assert!(range(&headers(&[(header::RANGE, "bytes=0-1,3-4")]), &digest).is_none());
        let mut twice = headers(&[(header::RANGE, "bytes=0-1")]);
        twice.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert!(range(&twice, &digest).is_none());
    }
}
