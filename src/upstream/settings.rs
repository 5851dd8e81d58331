//! What an upstream is made from: plain values, already read from wherever they stand.

use std::time::Duration;

use hyper::Uri;
use thiserror::Error;

use crate::oci::Registry;
use crate::secret::Secret;

/// One upstream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What clients call it.
    pub name: Registry,
    /// Where its API is: `http` or `https`, a host, perhaps a path in front of `/v2/`.
    pub url: Uri,
    /// Asked in this order, as nobody, when `url` is out of order, limits us, or lacks what is asked for.
    pub fallbacks: Vec<Uri>,
    /// As whom we ask: the first that has more than `reserve` pulls left. Anonymous without any.
    pub accounts: Vec<Account>,
    /// Pulls of the rate limit that are kept for who waits.
    pub reserve: u64,
    /// How it, and its fallbacks, are reached.
    pub proxies: Proxies,
    /// Certificates in PEM that are trusted beside the system's.
    pub extra_ca: Option<Vec<u8>>,
    /// For the name's address, the connection and TLS together.
    pub connect_timeout: Duration,
    /// From sending a request to the head of its answer.
    pub header_timeout: Duration,
    /// For the next bytes of a body.
    pub stall_timeout: Duration,
    /// Downloads at a time, and as many other requests beside them. The wait for a place among them has no limit here:
    /// it is the caller who knows what the answer is worth.
    pub max_connections: usize,
    /// How many connections may fetch one large blob side by side; at least 1.
    pub parallel: usize,
    /// Bytes per second over all connections; without, as fast as they come.
    pub bandwidth: Option<u64>,
}

/// Through whom connections go; directly without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for plain HTTP: a URL, perhaps with an account in it.
    pub http: Option<Secret>,
    /// The one for HTTPS.
    pub https: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, as in `NO_PROXY`.
    pub not_for: String,
}

/// A user of the upstream.
#[derive(Clone, Debug)]
pub struct Account {
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: Secret,
}

/// Why an upstream cannot be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The URL cannot be one of a registry.
    #[error("not the URL of a registry: {0}")]
    Url(&'static str),
    /// The extra certificates cannot be used.
    #[error("the extra CA cannot be used: {0}")]
    Ca(String),
    /// A proxy of a kind that we do not know. It may have an account in it, so it is not repeated.
    #[error("its proxy is not one that can be used: write http://, a host and a port")]
    Proxy,
    /// Nothing to check a server's certificate against.
    #[error("this system has no trusted certificates and none are configured")]
    NothingTrusted,
    /// rustls refuses the whole.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Settings {
    /// Refuses what the rest of this room relies on not to be there.
    pub(super) fn check(&self) -> Result<(), SetupError> {
        [&self.url].into_iter().chain(&self.fallbacks).try_for_each(check_url)
    }
}

fn check_url(url: &Uri) -> Result<(), SetupError> {
    let (Some(authority), Some(host)) = (url.authority(), url.host()) else {
        return Err(SetupError::Url("it has no host"));
    };
    let rules = [
        (matches!(url.scheme_str(), Some("http" | "https")), "write http:// or https://"),
        (!authority.as_str().contains('@'), "an account belongs in user name and password"),
        (authority.as_str() == host || url.port_u16().is_some(), "its port is no number"),
        (url.query().is_none(), "it has a query"),
    ];
    match rules.into_iter().find(|(is_kept, _)| !is_kept) {
        Some((_, reason)) => Err(SetupError::Url(reason)),
        None => Ok(()),
    }
}
