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
    /// As whom we ask; anonymous without.
    pub account: Option<Account>,
    /// Certificates in PEM that are trusted beside the system's.
    pub extra_ca: Option<Vec<u8>>,
    /// For the name's address, the connection and TLS together.
    pub connect_timeout: Duration,
    /// From sending a request to the head of its answer.
    pub header_timeout: Duration,
    /// For the next bytes of a body.
    pub stall_timeout: Duration,
    /// Downloads at a time, and as many other requests beside them.
    pub max_connections: usize,
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
    #[error("{0} is no URL of a registry: {1}")]
    Url(Uri, &'static str),
    /// The extra certificates cannot be used.
    #[error("the extra CA cannot be used: {0}")]
    Ca(String),
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
        let wrong = |reason| Err(SetupError::Url(self.url.clone(), reason));
        let Some(authority) = self.url.authority() else { return wrong("it has no host") };
        if !matches!(self.url.scheme_str(), Some("http" | "https")) {
            return wrong("write http:// or https://");
        }
        if authority.as_str().contains('@') {
            return Err(SetupError::Url(Uri::default(), "an account belongs in username and password"));
        }
        if self.url.port_u16().is_none() && self.url.host().is_some_and(|host| authority.as_str() != host) {
            return wrong("its port is no number");
        }
        if self.url.query().is_some() {
            return wrong("it has a query");
        }
        Ok(())
    }
}
