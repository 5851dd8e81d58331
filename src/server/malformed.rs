//! Requests that hyper's parser lets through and that are answered with 400 all the same. Pure; renders nothing.
//!
//! What is refused here is what two parsers may understand differently (who is asked, where the target begins) and what
//! no registry does (CONNECT, TRACE). An `Upgrade` field is not refused: it is an offer, which nothing here ever accepts, and
//! ordinary clients (Java's, `curl --http2`) send it with every request. hyper itself takes care of the rest: conflicting
//! or unreadable lengths get a 400; of Transfer-Encoding beside Content-Length it believes the first, and closes.

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Version};
use thiserror::Error;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// HTTP/1.1 without Host.
    #[error("the request has no Host header")]
    NoHost,
    /// More than one Host.
    #[error("the request has more than one Host header")]
    TwoHosts,
    /// A Host that is no host.
    #[error("the request's Host header is not a host name with an optional port")]
    BadHost,
    /// The target is a URL, an authority, or `*`.
    #[error("the request's target is not a path: this server is not a proxy")]
    NotAPath,
    /// CONNECT or TRACE.
    #[error("this server neither tunnels nor echoes")]
    Method,
}

/// Why this request must not be answered with anything but 400, if so.
pub fn refuse<B>(request: &Request<B>) -> Option<Malformed> {
    if [Method::CONNECT, Method::TRACE].contains(request.method()) {
        return Some(Malformed::Method);
    }
    let target = request.uri();
    if target.authority().is_some() || !target.path().starts_with('/') {
        return Some(Malformed::NotAPath);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None, _) => Some(Malformed::NoHost),
        (Some(_), Some(_)) => Some(Malformed::TwoHosts),
        (Some(host), None) => (!is_host(host.as_bytes())).then_some(Malformed::BadHost),
    }
}

fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else { return false };
    let host = authority.host();
    match authority.as_str().strip_prefix(host) {
        Some("") => !host.is_empty(),
        Some(port) => !host.is_empty() && port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        // Someone's name stands in front.
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn ordinary_requests_pass() {
        for host in ["larder", "larder:5000", "127.0.0.1:5000", "[::1]:5000", "LARDER.example."] {
            assert_eq!(refuse(&request("GET", "/v2/", &[host])), None, "{host}");
        }
        let upgrade = Request::builder().uri("/v2/").header(HOST, "larder").header("upgrade", "h2c").body(()).unwrap();
        assert_eq!(refuse(&upgrade), None);
        let mut old = request("GET", "/v2/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(refuse(&old), None);
    }

    #[test]
    fn there_is_one_host() {
        assert_eq!(refuse(&request("GET", "/v2/", &[])), Some(Malformed::NoHost));
        assert_eq!(refuse(&request("GET", "/v2/", &["larder", "larder"])), Some(Malformed::TwoHosts));
        for host in ["", "larder, evil", "user@larder", "larder/v2", "lar der", "http://larder", ":5000", "larder:x"] {
            assert_eq!(refuse(&request("GET", "/v2/", &[host])), Some(Malformed::BadHost), "{host}");
        }
    }

    #[test]
    fn the_target_is_a_path() {
        for target in ["http://evil/v2/", "https://evil", "evil:443", "evil", "*"] {
            assert_eq!(refuse(&request("GET", target, &["larder"])), Some(Malformed::NotAPath), "{target}");
        }
    }

    #[test]
    fn there_is_no_tunnel_and_no_echo() {
        assert_eq!(refuse(&request("CONNECT", "evil:443", &["evil:443"])), Some(Malformed::Method));
        assert_eq!(refuse(&request("TRACE", "/v2/", &["larder"])), Some(Malformed::Method));
    }
}
