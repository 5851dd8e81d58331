//! Making connections: names to addresses, the rule about addresses, proxies, TCP, TLS, all within one time limit.
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
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tower_service::Service;

use super::address::AddressPolicy;
use super::cause::describe;
use super::proxy::{self, ProxyFailed, ProxyRule};

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
    direct: HttpsConnector<HttpConnector<Resolver>>,
    /// To a proxy, which is wherever the operator says.
    to_proxy: HttpConnector<Resolver>,
    tls: ClientConfig,
    policy: Arc<AddressPolicy>,
    proxies: Arc<ProxyRule>,
    timeout: Duration,
}

impl Dialer {
    /// A dialer for the upstream at `url`. Connects to nothing yet.
    pub fn new(url: &Uri, tls: ClientConfig, proxies: Arc<ProxyRule>, timeout: Duration) -> Dialer {
        let policy = Arc::new(AddressPolicy::new(url));
        let direct = tcp(Some(policy.clone()), timeout);
        let direct = HttpsConnector::from((direct, tls.clone()));
        Dialer { direct, to_proxy: tcp(None, timeout), tls, policy, proxies, timeout }
    }

    /// What a request for `url` says to a proxy, if it goes to one.
    pub fn proxy_authorization(&self, url: &Uri) -> Option<HeaderValue> {
        self.proxies.authorization(url)
    }

    async fn connect(mut self, url: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxies.of(&url) else {
            return Ok(Stream { inner: self.direct.call(url).await?, asks_proxy: false });
        };
        self.connect_through(&proxy, url).await.map_err(|error| {
            let reason = describe(error.as_ref());
            ProxyFailed { proxy: proxy::name(&proxy), reason }.into()
        })
    }

    async fn connect_through(mut self, proxy: &Intercept, url: Uri) -> Result<Stream, BoxError> {
        if url.scheme_str() == Some("http") {
            let tcp = self.to_proxy.call(proxy.uri().clone()).await?;
            return Ok(Stream { inner: MaybeHttpsStream::Http(tcp), asks_proxy: true });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy);
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let inner = HttpsConnector::from((tunnel, self.tls)).call(url).await?;
        Ok(Stream { inner, asks_proxy: false })
    }
}

fn tcp(policy: Option<Arc<AddressPolicy>>, timeout: Duration) -> HttpConnector<Resolver> {
    let mut tcp = HttpConnector::new_with_resolver(Resolver { policy });
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    // Shared out among a name's addresses, so that a dead first one leaves time for the second.
    tcp.set_connect_timeout(Some(timeout));
    // A pooled connection that a NAT has silently forgotten fails after this, in time for another attempt.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(timeout));
    tcp
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pending<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        if let Err(forbidden) = self.policy.admit_literal(&url) {
            return Box::pin(ready(Err(forbidden.into())));
        }
        let dialling = tokio::time::timeout(self.timeout, self.clone().connect(url));
        Box::pin(async { dialling.await.unwrap_or_else(|_| Err(ConnectTimeout.into())) })
    }
}

/// A connection, and whether who is at its other end wants whole URLs.
pub struct Stream {
    inner: MaybeHttpsStream<TokioIo<TcpStream>>,
    asks_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.asks_proxy)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}

/// Finds a name's addresses and leaves out those that the rule, if there is one, forbids.
#[derive(Clone)]
pub struct Resolver {
    policy: Option<Arc<AddressPolicy>>,
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
            Ok(match policy {
                Some(policy) => policy.admit(name.as_str(), found)?.into_iter(),
                None => found.into_iter(),
            })
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
