//! What and where: addresses, paths, names and patterns.
//!
//! Whoever holds one of these need not check it again. Nothing here opens a file or looks up a host.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::text::text_value;
use crate::oci;
use crate::routing;

/// An address to listen on: `127.0.0.1:5000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(SocketAddr);

impl Listen {
    /// The socket's address. Port 0 lets the system choose.
    pub const fn addr(self) -> SocketAddr {
        self.0
    }

    pub(super) const fn loopback(port: u16) -> Listen {
        Listen(SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port)))
    }

    /// Whether one of the two addresses being taken means that the other is.
    pub(super) fn collides_with(self, other: Listen) -> bool {
        let (ours, theirs) = (self.0.ip(), other.0.ip());
        let same_ip = ours == theirs || ours.is_unspecified() || theirs.is_unspecified();
        same_ip && self.0.port() == other.0.port() && self.0.port() != 0
    }

    fn parse(text: &str) -> Option<Listen> {
        text.parse().ok().map(Listen)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(Listen, "not an address to listen on; write it like 127.0.0.1:5000, 0.0.0.0:5000 or [::1]:5000");

/// A file or a directory. A relative one counts from where the program was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    pub(super) fn parse(text: &str) -> Option<FilePath> {
        (!text.is_empty() && !text.contains('\0')).then(|| FilePath(text.into()))
    }
}

impl AsRef<Path> for FilePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

text_value!(FilePath, "not a path; write the name of a file or directory in quotes");

/// What clients call an upstream: `docker.io`, `ghcr.io`. All names of Docker Hub are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamName(oci::Registry);

impl UpstreamName {
    /// The name as a value of the specification.
    pub fn registry(&self) -> &oci::Registry {
        &self.0
    }

    /// Whether this is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.0.as_str() == routing::DOCKER_HUB
    }

    pub(super) fn parse(text: &str) -> Option<UpstreamName> {
        routing::canonical(text).parse().ok().map(UpstreamName)
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(UpstreamName, "not a registry; write it as clients do, host or host:port in lower case, like docker.io");

/// Where a server is: scheme, host and perhaps a port, never a user, a path or a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Box<str>);

impl BaseUrl {
    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn parse(text: &str) -> Option<BaseUrl> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let well_formed = matches!(scheme, "http" | "https") && is_authority(authority);
        well_formed.then(|| BaseUrl(format!("{scheme}://{}", authority.to_ascii_lowercase()).into()))
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_host_label),
    };
    host_is_good && port.is_none_or(|port| !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok())
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(
    BaseUrl,
    "not the address of a server; write https:// (or http://), a host and perhaps a port, without user, path or query"
);

/// A pattern over names: `*` stays within one component, `**` does not, `{a,b}` is either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Glob);

impl Pattern {
    /// Patterns as one question: does any of them match?
    ///
    /// # Errors
    /// Together they are too large to compile.
    pub fn any_of(patterns: &[Pattern]) -> Result<GlobSet, globset::Error> {
        let mut any = GlobSetBuilder::new();
        for pattern in patterns {
            any.add(pattern.0.clone());
        }
        any.build()
    }

    pub(super) fn parse(text: &str) -> Option<Pattern> {
        // No name begins or ends with a slash: such a pattern would be a rule that never applies.
        let can_match = !text.is_empty() && !text.starts_with('/') && !text.ends_with('/');
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        glob.ok().filter(|_| can_match).map(Pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.glob())
    }
}

text_value!(Pattern, "not a pattern; write it like library/*, golden/** or v*, without a / at either end");

/// A user of the private registry or of an upstream; where users are listed, `*` is anyone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName(Box<str>);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn parse(text: &str) -> Option<UserName> {
        // Basic authentication ends the name at the first colon.
        let good = !text.is_empty() && !text.contains(|c: char| c == ':' || c.is_control());
        good.then(|| UserName(text.into()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(UserName, "not a user's name; it cannot be empty or have a colon in it");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_scheme_host_and_port_only() {
        for (text, url) in [
            ("https://registry-1.docker.io", "https://registry-1.docker.io"),
            ("http://Localhost:5000/", "http://localhost:5000"),
            ("https://[::1]:443", "https://[::1]:443"),
            ("https://[::1]", "https://[::1]"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().as_str(), url);
        }
        for bad in [
            "",
            "docker.io",
            "ftp://docker.io",
            "HTTPS://docker.io",
            "https://",
            "https:///",
            "https://a/v2",
            "https://a//",
            "https://a?b",
            "https://a#b",
            "https://user:secret@a",
            "https://a:0",
            "https://a:65536",
            "https://a:",
            "https://a:+1",
            "https://a b",
            "https://[::1",
            "https://[a]:1",
            "https://::1",
            "https://a..b",
            "https://a\n",
        ] {
            assert_eq!(BaseUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_do_not() {
        let matches =
            |pattern: &str, name: &str| Pattern::any_of(&[Pattern::parse(pattern).unwrap()]).unwrap().is_match(name);
        assert!(matches("library/*", "library/alpine"));
        assert!(!matches("golden/*", "golden/base/web"));
        assert!(matches("golden/**", "golden/base/web"));
        assert!(matches("**", "a/b/c"));
        for bad in ["", "/golden/**", "golden/", "[", "a{b"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_names_of_docker_hub_are_one() {
        for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            assert_eq!(UpstreamName::parse(name).unwrap().to_string(), "docker.io");
        }
        assert!(!UpstreamName::parse("ghcr.io").unwrap().is_docker_hub());
        assert_eq!(UpstreamName::parse("https://ghcr.io"), None);
    }

    #[test]
    fn addresses_collide_through_the_unspecified_one() {
        let collide = |a: &str, b: &str| Listen::parse(a).unwrap().collides_with(Listen::parse(b).unwrap());
        assert!(collide("127.0.0.1:5000", "0.0.0.0:5000"));
        assert!(!collide("127.0.0.1:5000", "127.0.0.2:5000"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
    }
}
