//! Making connections: names to addresses, the rule about addresses, TCP, TLS, all within one time limit.
//!
//! The rule is applied here and not where URLs are read, because only here it is known which address is meant.

use std::future::{Future, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tower_service::Service;

use super::address::AddressPolicy;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Pending<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// How often a silent connection is probed, so that a download from a host that is gone does not look merely slow.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection took too long to make.
#[derive(Debug, Error)]
#[error("no connection within the time allowed")]
pub struct ConnectTimeout;

/// Connects to one upstream, and to where it may send us.
#[derive(Clone)]
pub struct Dialer {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    policy: Arc<AddressPolicy>,
    timeout: Duration,
}

impl Dialer {
    /// A dialer for the upstream at `url`. Connects to nothing yet.
    pub fn new(url: &Uri, tls: ClientConfig, timeout: Duration) -> Dialer {
        let policy = Arc::new(AddressPolicy::new(url));
        let mut tcp = HttpConnector::new_with_resolver(Resolver { policy: policy.clone() });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        // Shared out among a name's addresses, so that a dead first one leaves time for the second.
        tcp.set_connect_timeout(Some(timeout));
        // A pooled connection that a NAT has silently forgotten fails after this, in time for another attempt.
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(timeout));
        Dialer { connector: HttpsConnector::from((tcp, tls)), policy, timeout }
    }
}

impl Service<Uri> for Dialer {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pending<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        if let Err(forbidden) = self.policy.admit_literal(&url) {
            return Box::pin(ready(Err(forbidden.into())));
        }
        let dialling = tokio::time::timeout(self.timeout, self.connector.call(url));
        Box::pin(async { dialling.await.unwrap_or_else(|_| Err(ConnectTimeout.into())) })
    }
}

/// Finds a name's addresses and leaves out those that the rule forbids.
#[derive(Clone)]
pub struct Resolver {
    policy: Arc<AddressPolicy>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    // Boxed as it is, so that a `ForbiddenAddress` can be told from what the system says.
    type Error = BoxError;
    type Future = Pending<Self::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = self.policy.clone();
        Box::pin(async move {
            let found = look_up(name.as_str()).await?;
            Ok(policy.admit(name.as_str(), found)?.into_iter())
        })
    }
}

async fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(name) {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(loopback.map(|address| SocketAddr::new(address, 0)).to_vec());
    }
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

/// RFC 6761, section 6.3: such names are this machine, and no resolver is asked about them.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_here() {
        for name in ["localhost", "LocalHost", "localhost.", "hub.localhost", "a.b.localhost."] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["", ".", "localhost.example", "notlocalhost", "localhost.."] {
            assert!(!is_localhost(name), "{name}");
        }
    }
}
