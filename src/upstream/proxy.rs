//! Which connections go through a proxy, and what it is told. Never connects.
//!
//! An HTTPS upstream is reached through a tunnel (CONNECT), a plain one by asking the proxy for the whole URL. A proxy
//! resolves names itself, so the addresses that they have cannot be checked here (SECURITY.md).

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use thiserror::Error;

use super::settings::{Proxies, SetupError};

/// The proxies of one host.
pub struct ProxyRule {
    matcher: Matcher,
}

/// A connection that was to go through a proxy did not come about.
#[derive(Debug, Error)]
#[error("through the proxy at {proxy}: {reason}")]
pub struct ProxyFailed {
    /// Host and port; never its account.
    pub proxy: String,
    /// What went wrong, there or behind it.
    pub reason: String,
}

impl ProxyRule {
    /// The rule that `proxies` make.
    ///
    /// # Errors
    /// One of them is no proxy that we can use: better none of our traffic than past a proxy that was meant to see it.
    pub fn new(proxies: &Proxies) -> Result<ProxyRule, SetupError> {
        let text = |proxy: &Option<crate::secret::Secret>| {
            proxy.as_ref().map(|proxy| proxy.expose().to_owned()).unwrap_or_default()
        };
        let (http, https) = (text(&proxies.http), text(&proxies.https));
        let wanted = [("http://x", !http.is_empty()), ("https://x", !https.is_empty())];
        let all = Matcher::builder().http(http.as_str()).https(https.as_str()).build();
        for (url, is_wanted) in wanted {
            let found = all.intercept(&Uri::from_static(url));
            let is_usable = found.is_some_and(|found| found.uri().scheme_str() == Some("http"));
            if is_wanted && !is_usable {
                return Err(SetupError::Proxy);
            }
        }
        let matcher = Matcher::builder().http(http).https(https).no(proxies.not_for.as_str()).build();
        Ok(ProxyRule { matcher })
    }

    /// The proxy through which `url` is reached, if it is.
    pub fn of(&self, url: &Uri) -> Option<Intercept> {
        self.matcher.intercept(url)
    }

    /// What a request for `url` itself says to a proxy. A tunnel's request says it for those that go through it.
    pub fn authorization(&self, url: &Uri) -> Option<HeaderValue> {
        let intercept = if url.scheme_str() == Some("http") { self.of(url) } else { None };
        intercept.and_then(|proxy| proxy.basic_auth().cloned())
    }
}

/// Host and port of `proxy`, for people.
pub fn name(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", uri.host().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn rule(http: &str, https: &str, not_for: &str) -> Result<ProxyRule, SetupError> {
        let some = |text: &str| (!text.is_empty()).then(|| Secret::new(text));
        ProxyRule::new(&Proxies { http: some(http), https: some(https), not_for: not_for.into() })
    }

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_have_none() {
        let rule = rule("http://a:1", "http://me:hunter2@b:2", "inside.example,10.0.0.0/8").unwrap();
        for (url, expected) in [
            ("http://hub.example/", Some("a:1")),
            ("https://hub.example/", Some("b:2")),
            ("https://inside.example/", None),
            ("https://x.inside.example/", None),
            ("http://10.1.2.3:5000/", None),
            ("http://11.1.2.3:5000/", Some("a:1")),
        ] {
            assert_eq!(rule.of(&url.parse().unwrap()).map(|proxy| name(&proxy)).as_deref(), expected, "{url}");
        }
        let told = rule.of(&"https://hub.example/".parse().unwrap()).unwrap();
        assert_eq!(told.basic_auth().unwrap(), "Basic bWU6aHVudGVyMg==");
        assert!(!format!("{told:?} {:?}", told.basic_auth()).contains("hunter2"));
        assert!(rule.authorization(&"http://hub.example/".parse().unwrap()).is_none());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_passed_by() {
        for text in ["socks5://a:1", "https://a:1", "http://", "::"] {
            assert!(rule(text, "", "").is_err() && rule("", text, "").is_err(), "{text}");
        }
        assert!(rule("", "", "*").unwrap().of(&"http://a".parse().unwrap()).is_none());
        // As curl reads it.
        assert!(rule("proxy:3128", "", "").is_ok());
    }
}
