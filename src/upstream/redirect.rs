//! Where a redirect leads. Never goes there.

use hyper::Uri;

use super::origin::{Origin, Refusal, admit};

/// Redirects that one question may take.
pub const MAX_HOPS: usize = 5;

/// Where `location`, in an answer to a request for `from`, leads.
pub fn target(registry: &Origin, from: &Uri, location: &str) -> Result<Uri, Refusal> {
    admit(registry, &resolve(from, location).ok_or(Refusal::Malformed)?)
}

/// RFC 3986, section 5.2, without dot segments: no registry sends them, and a server resolves them itself.
fn resolve(from: &Uri, location: &str) -> Option<String> {
    let location = location.split('#').next()?;
    let scheme_ends = location.find([':', '/', '?']).filter(|&end| location[end..].starts_with(':'));
    if scheme_ends.is_some() {
        return Some(location.to_owned());
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let path = from.path();
    let full = match location.chars().next() {
        None => from.path_and_query()?.to_string(),
        Some('/') => location.to_owned(),
        Some('?') => format!("{path}{location}"),
        Some(_) => format!("{}{location}", &path[..=path.rfind('/')?]),
    };
    Some(format!("{scheme}://{authority}{full}"))
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
    }
}
