//! Where a redirect leads, and whether we go there. Never connects; what addresses are allowed is not decided here.

use hyper::Uri;

/// Redirects that one question may take.
pub const MAX_HOPS: usize = 5;

/// Why a redirect is not followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be read.
    Malformed,
    /// It can, and must not be followed.
    Forbidden(String),
}

/// Scheme, host and port: what a credential is for.
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

    /// Whether what is sent there can be read on the way.
    pub fn is_plain(&self) -> bool {
        self.scheme == "http"
    }
}

/// Where `location`, in an answer to a request for `from`, leads. Plain HTTP only if `registry` itself is.
pub fn target(registry: &Origin, from: &Uri, location: &str) -> Result<Uri, Refusal> {
    let url = resolve(from, location).ok_or(Refusal::Malformed)?;
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else { return Err(Refusal::Malformed) };
    if authority.as_str().contains('@') {
        return Err(Refusal::Forbidden(format!("the redirect to {host} has an account in it")));
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if registry.is_plain() => Ok(url),
        _ => Err(Refusal::Forbidden(format!("the redirect to {host} is not https"))),
    }
}

/// RFC 3986, section 5.2, without dot segments: no registry sends them, and a server resolves them itself.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let scheme_ends = location.find([':', '/', '?']).filter(|&end| location[end..].starts_with(':'));
    if scheme_ends.is_some() {
        return location.parse().ok();
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if location.starts_with("//") {
        return format!("{scheme}:{location}").parse().ok();
    }
    let path = from.path();
    let full = match location.chars().next() {
        None => return Some(from.clone()),
        Some('/') => location.to_owned(),
        Some('?') => format!("{path}{location}"),
        Some(_) => format!("{}{location}", &path[..=path.rfind('/')?]),
    };
    format!("{scheme}://{authority}{full}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "https://registry.example:444/v2/a/blobs/sha256:0?x=1";

    fn follow(location: &str) -> Result<String, Refusal> {
        let from: Uri = FROM.parse().unwrap();
        target(&Origin::of(&from), &from, location).map(|url| url.to_string())
    }

    #[test]
    fn a_location_is_read_against_what_was_asked() {
        for (location, expected) in [
            ("https://cdn.example/b?Signature=a%2Fb&c", "https://cdn.example/b?Signature=a%2Fb&c"),
            ("https://cdn.example/b#part", "https://cdn.example/b"),
            ("//cdn.example/b", "https://cdn.example/b"),
            ("/other?y=:", "https://registry.example:444/other?y=:"),
            ("?y=2", "https://registry.example:444/v2/a/blobs/sha256:0?y=2"),
            ("data", "https://registry.example:444/v2/a/blobs/data"),
            ("", FROM),
        ] {
            assert_eq!(follow(location).as_deref(), Ok(expected), "{location}");
        }
    }

    #[test]
    fn what_is_not_safe_is_not_followed() {
        for location in ["http://cdn.example/b", "ftp://cdn.example/b", "https://me:word@cdn.example/b?secret"] {
            let Err(Refusal::Forbidden(reason)) = follow(location) else { panic!("{location}") };
            assert!(reason.contains("cdn.example") && !reason.contains("secret") && !reason.contains("word"));
        }
        for location in ["https://", "https:///b", "sha256:0", "https://a b/", "https://a\\b/", "http:", ":", "///b"] {
            assert_eq!(follow(location), Err(Refusal::Malformed), "{location}");
        }
        let plain: Uri = "http://registry.example/v2/".parse().unwrap();
        assert!(target(&Origin::of(&plain), &plain, "http://cdn.example/b").is_ok());
        assert!(target(&Origin::of(&plain), &plain, "https://cdn.example/b").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap());
        assert_eq!(origin("https://A.example/x"), origin("HTTPS://a.example:443/y"));
        assert_eq!(origin("http://a.example"), origin("http://a.example:80"));
        for other in ["http://a.example", "https://a.example:444", "https://b.example", "https://a.example.b"] {
            assert_ne!(origin("https://a.example"), origin(other), "{other}");
        }
    }
}
