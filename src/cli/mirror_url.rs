//! A mirror as the clients of this machine name it. Never asks whether one is there.

use std::fmt;

use crate::config::BaseUrl;

/// The address of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MirrorUrl(BaseUrl);

impl MirrorUrl {
    pub(super) fn new(url: BaseUrl) -> MirrorUrl {
        MirrorUrl(url)
    }

    /// What stands in a client's file; `None` if it is nothing that Larder can be reached at.
    pub(super) fn parse(text: &str) -> Option<MirrorUrl> {
        text_of(text).ok().map(MirrorUrl)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// `host:port`, which is also what clients call the folder of its certificates.
    pub(super) fn authority(&self) -> &str {
        self.as_str().split_once("://").map_or("", |(_, authority)| authority)
    }

    /// Without port and brackets: what is looked up, and what proxy variables take.
    pub(super) fn host(&self) -> &str {
        let host = match self.authority().rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => self.authority(),
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        let written = self.authority().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        written.unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    pub(super) fn is_https(&self) -> bool {
        self.as_str().starts_with("https://")
    }

    /// The same host, asked in another way.
    pub(super) fn at(&self, scheme: &str, port: u16) -> Option<MirrorUrl> {
        let host = self.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        MirrorUrl::parse(&format!("{scheme}://{host}:{port}"))
    }

    /// Whether a text of a client's file means this mirror.
    pub(super) fn is_named_by(&self, text: &str) -> bool {
        MirrorUrl::parse(text).is_some_and(|other| {
            (other.is_https(), other.host(), other.port()) == (self.is_https(), self.host(), self.port())
        })
    }
}

impl fmt::Display for MirrorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the configuration file takes as a text, with its complaint.
pub(super) fn text_of<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::Value::from(text).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_however_it_is_written() {
        for (text, authority, host, port) in [
            ("http://mirror.lan", "mirror.lan", "mirror.lan", 80),
            ("https://mirror.lan", "mirror.lan", "mirror.lan", 443),
            ("https://[fd00::1]:8443", "[fd00::1]:8443", "fd00::1", 8443),
            ("http://[fd00::1]", "[fd00::1]", "fd00::1", 80),
            ("http://10.0.0.1:5000", "10.0.0.1:5000", "10.0.0.1", 5000),
        ] {
            let mirror = MirrorUrl::parse(text).unwrap();
            assert_eq!((mirror.authority(), mirror.host(), mirror.port()), (authority, host, port));
        }
    }

    #[test]
    fn clients_write_the_same_mirror_in_several_ways() {
        let mirror = MirrorUrl::parse("http://mirror.lan:80").unwrap();
        assert!(mirror.is_named_by("http://Mirror.lan/") && mirror.is_named_by("http://mirror.lan"));
        for other in ["https://mirror.lan:80", "http://mirror.lan:5000", "http://other.lan", "mirror.lan", ""] {
            assert!(!mirror.is_named_by(other), "{other}");
        }
        assert_eq!(mirror.at("https", 5000).unwrap().as_str(), "https://mirror.lan:5000");
    }
}
