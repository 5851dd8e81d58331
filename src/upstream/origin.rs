//! Scheme, host and port; and which URLs of a stranger are read at all. Pure: what a host's address may be is decided
//! when it is known.

use hyper::Uri;

/// What a credential is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of `url`; two URLs that differ only in case or in naming the usual port have one.
    pub fn of(url: &Uri) -> Origin {
        let scheme = url.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
        Origin { scheme, host: url.host().unwrap_or_default().to_ascii_lowercase(), port }
    }

    /// The host, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Why we do not go where a stranger sends us. Never repeats a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no URL with a host.
    Malformed,
    /// It is, and we must not.
    Forbidden(String),
}

/// The URL that the registry at `registry` has written, if it is as safe as the registry's own and has no account in it.
pub fn admit(registry: &Origin, text: &str) -> Result<Uri, Refusal> {
    let url: Uri = text.parse().map_err(|_| Refusal::Malformed)?;
    let (Some(scheme), Some(authority), Some(host)) = (url.scheme_str(), url.authority(), url.host()) else {
        return Err(Refusal::Malformed);
    };
    if authority.as_str().contains('@') {
        return Err(Refusal::Forbidden(format!("its URL, at {host}, has an account in it")));
    }
    // The parser lets anything pass for a port.
    if authority.as_str().len() != host.len() && url.port_u16().is_none() {
        return Err(Refusal::Malformed);
    }
    match scheme {
        "https" => Ok(url),
        "http" if registry.scheme == "http" => Ok(url),
        _ => Err(Refusal::Forbidden(format!("its URL, at {host}, is not https"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&url.parse().unwrap())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://A.example/x"), origin("HTTPS://a.example:443/y"));
        assert_eq!(origin("http://a.example"), origin("http://a.example:80"));
        for other in ["http://a.example", "https://a.example:444", "https://b.example", "https://a.example.b"] {
            assert_ne!(origin("https://a.example"), origin(other), "{other}");
        }
    }

    #[test]
    fn plain_http_is_only_for_who_speaks_it() {
        let (plain, safe) = (origin("http://a.example"), origin("https://a.example"));
        assert!(admit(&plain, "http://b.example").is_ok() && admit(&plain, "https://b.example").is_ok());
        assert!(admit(&safe, "https://b.example:8443/x").is_ok() && admit(&safe, "https://[::1]:8443/x").is_ok());
        assert!(matches!(admit(&safe, "http://b.example"), Err(Refusal::Forbidden(_))));
        assert!(matches!(admit(&plain, "ftp://b.example"), Err(Refusal::Forbidden(_))));
        for text in ["https://b.example:", "https://b.example:x", "https://b.example:65536", "https://[::1]x", "b:1"] {
            assert_eq!(admit(&safe, text), Err(Refusal::Malformed), "{text}");
        }
    }
}
