//! Writing `WWW-Authenticate`, and what to answer to someone who may not. Pure.
//!
//! Basic or Bearer, never both: Docker's classic store obeys every challenge that it is given, and fails for want of a
//! password where a token for nobody would do. Basic is what every client does with the fewest requests and needs no
//! address of a token service, which behind a proxy is easily wrong; so it is what is sent where everybody needs an
//! account. Where someone without one may pull, Docker would not even try without a password, so there it is Bearer.

use super::action::Action;
use crate::oci::RepoName;

/// What the realm and the tokens' audience are called.
pub const SERVICE: &str = "larder";

/// Which kind of challenge is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The password itself, on every request.
    Basic,
    /// A token from our own `/token`.
    Bearer,
}

/// What was asked for, so that the client can ask for a token that gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// `/v2/`.
    Base,
    /// The catalogue.
    Catalog,
    /// An action on a repository.
    Repository(&'a RepoName, Action),
}

/// What was wrong with the token that was shown, if one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not valid (any more).
    InvalidToken,
    /// It does not list what was asked for. Podman asks for a wider one only if it is told this.
    InsufficientScope,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is allowed.
    Allowed,
    /// 401 with a challenge: who asks is not known, or has shown a token that reaches not far enough.
    Challenge(Option<Fault>),
    /// 403 `DENIED`: known, may see it, may not do this.
    Denied,
    /// 403 `DENIED`, with the patterns of what is hosted: known, and there is no such place.
    NotHosted,
    /// 404, as if it did not exist: known, and may not know of it.
    Hidden,
}

/// How clients reach us: scheme, host and port, as they are in their own requests, or as the operator says they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// From scheme and authority, as `https://registry.lan`. `None` if it is nothing that may stand in a header of ours.
    pub fn of_url(url: &str) -> Option<Origin> {
        match url.split_once("://")? {
            ("https", host) => Origin::new(true, host),
            ("http", host) => Origin::new(false, host),
            _ => None,
        }
    }

    /// From the `Host` header. `None` if it is nothing that may stand in a header of ours.
    pub fn new(tls: bool, host: &str) -> Option<Origin> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        let scheme = if tls { "https" } else { "http" };
        (!host.is_empty() && host.len() <= 260 && host.bytes().all(good)).then(|| Origin(format!("{scheme}://{host}")))
    }
}

/// The value of `WWW-Authenticate`. Without an origin there is no address for a token service, and so no Bearer.
pub fn challenge(scheme: Scheme, origin: Option<&Origin>, wanted: Wanted<'_>, fault: Option<Fault>) -> String {
    let (Scheme::Bearer, Some(Origin(origin))) = (scheme, origin) else {
        return format!("Basic realm=\"{SERVICE}\"");
    };
    let mut text = format!("Bearer realm=\"{origin}/token\",service=\"{SERVICE}\"");
    match wanted {
        Wanted::Base => {}
        Wanted::Catalog => text.push_str(",scope=\"registry:catalog:*\""),
        Wanted::Repository(name, action) => {
            // Who adds or takes looks first.
            let actions = match action {
                Action::Pull => "pull",
                Action::Push => "pull,push",
                Action::Delete => "pull,delete",
            };
            text.push_str(&format!(",scope=\"repository:{name}:{actions}\""));
        }
    }
    match fault {
        None => {}
        Some(Fault::InvalidToken) => text.push_str(",error=\"invalid_token\""),
        Some(Fault::InsufficientScope) => text.push_str(",error=\"insufficient_scope\""),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_says_where_and_what_to_ask_for() {
        let origin = Origin::new(true, "registry.local:5001").unwrap();
        let name = "team/app".parse().unwrap();
        let of = |wanted, fault| challenge(Scheme::Bearer, Some(&origin), wanted, fault);
        let realm = "Bearer realm=\"https://registry.local:5001/token\",service=\"larder\"";
        assert_eq!(of(Wanted::Base, None), realm);
        assert_eq!(of(Wanted::Catalog, None), format!("{realm},scope=\"registry:catalog:*\""));
        assert_eq!(
            of(Wanted::Repository(&name, Action::Push), Some(Fault::InsufficientScope)),
            format!("{realm},scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\"")
        );
        assert_eq!(of(Wanted::Base, Some(Fault::InvalidToken)), format!("{realm},error=\"invalid_token\""));
    }

    #[test]
    fn a_basic_challenge_says_nothing_of_what_was_asked_for() {
        let (origin, name) = (Origin::new(false, "[::1]:5001"), "team/app".parse().unwrap());
        let wanted = Wanted::Repository(&name, Action::Pull);
        let basic = "Basic realm=\"larder\"";
        assert_eq!(challenge(Scheme::Basic, origin.as_ref(), wanted, None), basic);
        assert_eq!(challenge(Scheme::Bearer, None, wanted, Some(Fault::InvalidToken)), basic);
    }

    #[test]
    fn a_host_cannot_break_out_of_the_header() {
        for bad in ["", "a b", "a\"b", "a\\", "a/b", "a\r\nX: y", "user@host", "é", &"a".repeat(261)] {
            assert_eq!(Origin::new(true, bad), None, "{bad:?}");
        }
        assert_eq!(Origin::new(false, "[::1]:5001"), Some(Origin("http://[::1]:5001".into())));
        for good in ["https://registry.lan", "http://[::1]:5001"] {
            assert_eq!(Origin::of_url(good), Some(Origin(good.into())));
        }
        for bad in ["registry.lan", "ftp://registry.lan", "https://registry.lan/v2", "https://"] {
            assert_eq!(Origin::of_url(bad), None, "{bad}");
        }
    }
}
