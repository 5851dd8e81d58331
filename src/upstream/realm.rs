//! Whether a registry may send us to a token service. Decided before a byte goes there: what we would send is a password.
//! Never connects.

use std::net::IpAddr;

use hyper::Uri;

use super::origin::{Origin, Refusal, admit};

/// The token service at `realm`, if the registry at `registry` may name it: at its own host, or at one below the same
/// registrable domain.
pub fn check(registry: &Origin, realm: &str) -> Result<Uri, String> {
    let url = admit(registry, realm).map_err(|refusal| match refusal {
        Refusal::Malformed => "its URL is none".to_owned(),
        Refusal::Forbidden(reason) => reason,
    })?;
    let host = Origin::of(&url).host().to_owned();
    if is_related(registry.host(), &host) {
        Ok(url)
    } else {
        Err(format!("it is at {host}, which does not belong to the registry"))
    }
}

fn is_related(registry: &str, realm: &str) -> bool {
    registry == realm || registrable(registry).is_some_and(|domain| registrable(realm) == Some(domain))
}

/// What one owner has registered: `docker.io` of `auth.docker.io`. Below a suffix that the list does not know, such as
/// `localhost` or `lan`, it is one name more, as the list prescribes.
fn registrable(host: &str) -> Option<&str> {
    // The list is for names. To it, 10.0.0.1 is a name below "1", and resolvers take more forms than `IpAddr` does.
    let last = host.rsplit('.').next()?;
    let is_name = last.starts_with(|c: char| c.is_ascii_alphabetic()) && host.parse::<IpAddr>().is_err();
    if is_name { psl::domain_str(host) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(registry: &str, realm: &str) -> bool {
        check(&Origin::of(&registry.parse().unwrap()), realm).is_ok()
    }

    #[test]
    fn realms_of_the_same_owner_are_accepted() {
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry-1.docker.io", "https://AUTH.Docker.IO/token?x=1"),
            ("https://registry-1.docker.io", "https://registry-1.docker.io:8443/token"),
            ("https://registry-1.docker.io", "https://docker.io/token"),
            ("https://docker.io", "https://a.b.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://registry.example.co.uk", "https://auth.example.co.uk/token"),
            ("https://registry:5000", "https://registry/token"),
            ("https://10.0.0.1:5000", "https://10.0.0.1/token"),
            ("https://[fd00::1]:5000", "https://[fd00::1]/token"),
            ("http://10.0.0.1:5000", "http://10.0.0.1:5001/token"),
            ("http://10.0.0.1:5000", "https://10.0.0.1:5001/token"),
            ("http://localhost:5000", "http://localhost:5001/token"),
            ("http://x.hub.localhost:1", "http://auth.hub.localhost:2/token"),
            ("http://hub.localhost:1", "http://auth.hub.localhost:2/token"),
        ] {
            assert!(is_accepted(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn realms_of_another_owner_are_not() {
        let hub = "https://registry-1.docker.io";
        for (registry, realm) in [
            (hub, "http://auth.docker.io/token"),
            (hub, "https://evil.example/token"),
            (hub, "https://auth.docker.io.evil.example/token"),
            (hub, "https://evildocker.io/token"),
            (hub, "https://auth.docker.io@evil.example/token"),
            (hub, "https://evil.example#@auth.docker.io/token"),
            (hub, "https://evil.example\\@auth.docker.io/token"),
            (hub, "https://user:word@auth.docker.io/token"),
            (hub, "https://@auth.docker.io/token"),
            (hub, "https://auth.docker.io./token"),
            (hub, "https://auth.docker.io%2eevil.example/token"),
            (hub, "https://auth.docker.io:token"),
            (hub, "https:///token"),
            (hub, "https:auth.docker.io/token"),
            (hub, "//auth.docker.io/token"),
            (hub, "/token"),
            (hub, ""),
            (hub, "auth.docker.io"),
            (hub, "ftp://auth.docker.io/token"),
            (hub, "file:///etc/passwd"),
            (hub, "javascript:alert(1)"),
            (hub, " https://auth.docker.io/token"),
            (hub, "https://auth.docker.io/\r\nHost: evil.example"),
            (hub, "https://127.0.0.1/token"),
            (hub, "https://[::1]/token"),
            (hub, "https://169.254.169.254/latest"),
            (hub, "https://io/token"),
            (hub, "https://ａuth.docker.io/token"),
            ("https://10.0.0.1", "https://10.9.0.1/token"),
            ("https://10.0.0.1", "https://0.1/token"),
            ("https://0x7f.1", "https://1.0x7f.1/token"),
            ("https://2130706433", "https://x.2130706433/token"),
            ("https://[fd00::1]", "https://[fd00::2]/token"),
            ("https://mine.github.io", "https://theirs.github.io/token"),
            ("https://registry.example.co.uk", "https://auth.other.co.uk/token"),
            ("https://registry", "https://auth/token"),
            ("http://localhost", "http://x.localhost/token"),
            ("http://x.hub.localhost", "http://auth.other.localhost/token"),
            ("https://hub.lan", "https://auth.lan/token"),
        ] {
            assert!(!is_accepted(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn a_refusal_repeats_no_query() {
        let refusal =
            check(&Origin::of(&Uri::from_static("https://a.example")), "https://b.test/token?secret=1").unwrap_err();
        assert!(refusal.contains("b.test") && !refusal.contains("secret"), "{refusal}");
    }
}
