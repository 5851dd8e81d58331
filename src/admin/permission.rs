//! Who may change things through the operator's address. Never looks at what is asked for, only at who asks and how.
//!
//! Reading is free to whoever reaches the address. What changes something needs the operator's token; where there is none,
//! a program on this machine. A browser is such a program, and does what any page tells it: so no page of another site is
//! listened to, nor one whose name was made to point here (the `Host` is then that name), nor a plain form.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, StatusCode};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::secret::Secret;

/// What a changing request says of itself, so that it cannot be a plain form's.
pub const MARK: HeaderName = HeaderName::from_static("x-larder-request");
/// Headers that a proxy adds: who asks through one is not on this machine, although the proxy is.
const PROXIED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Why a request may change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Of a page of another site.
    #[error(
        "this comes from a page of another site; open the page of this address itself, or use the `larder` command"
    )]
    CrossSite,
    /// Anybody's form could have sent it.
    #[error("a request that changes something says `X-Larder-Request: 1`, or has a body of application/json")]
    Unmarked,
    /// A name that someone else may have pointed here.
    #[error(
        "without a token things are changed at http://127.0.0.1 or http://localhost only, not under another name; set token_file in [admin]"
    )]
    Renamed,
    /// From another machine.
    #[error(
        "without a token things are changed from this machine only: set token_file in [admin], and send `Authorization: Bearer TOKEN`"
    )]
    Remote,
    /// No token.
    #[error(
        "this needs the token that token_file in [admin] has: `larder … --admin-token-file FILE`, or send `Authorization: Bearer TOKEN`"
    )]
    NoToken,
    /// Another one.
    #[error(
        "the token is not the one that token_file in [admin] has; a new one takes effect when the server is restarted"
    )]
    WrongToken,
}

impl Refusal {
    /// How it is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::NoToken | Refusal::WrongToken => StatusCode::UNAUTHORIZED,
            Refusal::CrossSite | Refusal::Unmarked | Refusal::Renamed | Refusal::Remote => StatusCode::FORBIDDEN,
        }
    }
}

/// Who may change things.
#[derive(Clone, Debug, Default)]
pub struct Permission {
    token: Option<Secret>,
}

impl Permission {
    /// Whoever has `token`; without one, whoever is on this machine.
    pub fn new(token: Option<Secret>) -> Permission {
        Permission { token }
    }

    /// Whether a request by `peer` may do what it asks for.
    ///
    /// # Errors
    /// It would change something, and may not.
    pub fn check(&self, method: &Method, headers: &HeaderMap, peer: IpAddr) -> Result<(), Refusal> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        if is_cross_site(headers) {
            return Err(Refusal::CrossSite);
        }
        if !is_marked(headers) {
            return Err(Refusal::Unmarked);
        }
        match &self.token {
            Some(token) => match bearer(headers) {
                None => Err(Refusal::NoToken),
                Some(shown) if same(shown, token) => Ok(()),
                Some(_) => Err(Refusal::WrongToken),
            },
            None if !peer.is_loopback() || PROXIED.iter().any(|name| headers.contains_key(*name)) => {
                Err(Refusal::Remote)
            }
            None if !host(headers).is_some_and(is_this_machine) => Err(Refusal::Renamed),
            None => Ok(()),
        }
    }
}

/// A browser says where a request comes from, and no page can have it say otherwise.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let every = |name: &str, good: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(good))
    };
    let own_origin = |origin: &str| {
        let place = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        place.is_some_and(|place| host(headers).is_some_and(|host| host.eq_ignore_ascii_case(place)))
    };
    !every("sec-fetch-site", &|site| matches!(site, "same-origin" | "none")) || !every("origin", &own_origin)
}

fn is_marked(headers: &HeaderMap) -> bool {
    let is_json = |value: &str| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    };
    headers.contains_key(MARK)
        || headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_json)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// An address, or the one name that cannot be made to point elsewhere.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// How long it takes says nothing of where they differ: only their hashes are compared.
fn same(shown: &[u8], token: &Secret) -> bool {
    Sha256::digest(shown) == Sha256::digest(token.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "127.0.0.1";
    const ELSEWHERE: &str = "192.168.1.9";

    fn check(token: Option<&str>, method: Method, peer: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Permission::new(token.map(Secret::new)).check(&method, &map, peer.parse().unwrap())
    }

    fn post(token: Option<&str>, peer: &str, more: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut headers = vec![("x-larder-request", "1"), ("host", "127.0.0.1:5080")];
        headers.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
        headers.extend_from_slice(more);
        check(token, Method::POST, peer, &headers)
    }

    #[test]
    fn whoever_reaches_the_address_may_read() {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(check(Some("t"), method, ELSEWHERE, &[("origin", "http://evil.example")]), Ok(()));
        }
    }

    #[test]
    fn without_a_token_only_a_program_on_this_machine_changes_things() {
        assert_eq!(post(None, HERE, &[]), Ok(()));
        assert_eq!(post(None, "::1", &[("host", "[::1]:5080")]), Ok(()));
        assert_eq!(post(None, HERE, &[("host", "localhost")]), Ok(()));
        assert_eq!(post(None, ELSEWHERE, &[]), Err(Refusal::Remote));
        assert_eq!(post(None, ELSEWHERE, &[("authorization", "Bearer t")]), Err(Refusal::Remote));
        for proxied in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
            assert_eq!(post(None, HERE, &[(proxied, "192.168.1.9")]), Err(Refusal::Remote), "{proxied}");
        }
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(check(None, method, HERE, &[("host", "127.0.0.1")]), Err(Refusal::Unmarked));
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_changes_nothing() {
        let rebound = [("host", "evil.example:5080"), ("origin", "http://evil.example:5080")];
        assert_eq!(post(None, HERE, &rebound), Err(Refusal::Renamed));
        for host in ["", "localhost.evil.example", "127.0.0.1.evil.example:5080", "evil@127.0.0.1"] {
            assert_eq!(post(None, HERE, &[("host", host)]), Err(Refusal::Renamed), "{host}");
        }
        // Its page does not have the token, and an operator may well use a name.
        assert_eq!(post(Some("t"), HERE, &rebound), Err(Refusal::NoToken));
        assert_eq!(post(Some("t"), ELSEWHERE, &[("host", "mirror.lan"), ("authorization", "bearer t")]), Ok(()));
    }

    #[test]
    fn with_a_token_it_is_needed_from_everywhere() {
        for peer in [HERE, ELSEWHERE] {
            assert_eq!(post(Some("correct"), peer, &[("authorization", "Bearer correct")]), Ok(()));
            assert_eq!(post(Some("correct"), peer, &[]), Err(Refusal::NoToken));
            for shown in ["Bearer correc", "Bearer correct ", "Bearer correctt", "Bearer "] {
                let refused = post(Some("correct"), peer, &[("authorization", shown)]);
                assert_eq!(refused, Err(Refusal::WrongToken), "{shown:?}");
            }
            assert_eq!(post(Some("correct"), peer, &[("authorization", "Basic correct")]), Err(Refusal::NoToken));
        }
    }

    #[test]
    fn no_page_of_another_site_is_listened_to_even_with_the_token() {
        let token = ("authorization", "Bearer t");
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.example"),
            ("origin", "http://127.0.0.1:5081"),
            ("origin", "null"),
        ] {
            for wanted in [None, Some("t")] {
                assert_eq!(post(wanted, HERE, &[foreign, token]), Err(Refusal::CrossSite), "{foreign:?}");
            }
        }
        let own = [("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:5080")];
        assert_eq!(post(None, HERE, &own), Ok(()));
        let twice = [("origin", "http://127.0.0.1:5080"), ("origin", "http://evil.example")];
        assert_eq!(post(None, HERE, &twice), Err(Refusal::CrossSite));
    }

    #[test]
    fn what_a_plain_form_can_send_changes_nothing() {
        let host = ("host", "127.0.0.1:5080");
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain;application/json"]
        {
            let refused = check(None, Method::POST, HERE, &[host, ("content-type", kind)]);
            assert_eq!(refused, Err(Refusal::Unmarked), "{kind}");
        }
        let json = ("content-type", "application/json; charset=utf-8");
        assert_eq!(check(None, Method::POST, HERE, &[host, json]), Ok(()));
    }
}
