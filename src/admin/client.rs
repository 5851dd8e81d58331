//! The other end of the operator's address: how a command asks a running server. Plain HTTP, as the address speaks it.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::permission::MARK;
use crate::secret::Secret;
use crate::task;

/// How long a server may take over an answer in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// Where a running server's operator's pages are: `http://127.0.0.1:5080`, or without the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    host: String,
    port: u16,
}

impl AdminUrl {
    /// The pages that a server listens for at `address` on this machine.
    pub fn listening(address: std::net::SocketAddr) -> AdminUrl {
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        AdminUrl { host: ip.to_string(), port: address.port() }
    }
}

impl std::fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AdminUrl { host, port } = self;
        if host.contains(':') { write!(f, "http://[{host}]:{port}") } else { write!(f, "http://{host}:{port}") }
    }
}

/// Why a text is no such place.
#[derive(Debug, Error)]
#[error("write the admin address of a server like http://127.0.0.1:5080")]
pub struct NoAdminUrl;

impl FromStr for AdminUrl {
    type Err = NoAdminUrl;

    fn from_str(text: &str) -> Result<AdminUrl, NoAdminUrl> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| NoAdminUrl)?;
        let authority = uri.authority().filter(|_| !rest.contains(['/', '@', '?', '#'])).ok_or(NoAdminUrl)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(AdminUrl { host, port: authority.port_u16().ok_or(NoAdminUrl)? })
    }
}

/// Why a server gave no answer.
#[derive(Debug, Error)]
pub enum AdminError {
    /// Nobody listens there, or not in time.
    #[error("no server answers at {0}: {1}; is larder running, and is that its [admin] address?")]
    Unreachable(AdminUrl, String),
    /// Something answers, and it is no Larder, or an older one.
    #[error("{0} answered {1} to {2}: is that the [admin] address of a Larder of this version?")]
    Refused(AdminUrl, StatusCode, String),
    /// It says why it does not do that.
    #[error("{0} answered {1}: {2}")]
    Denied(AdminUrl, StatusCode, String),
}

/// The page at `path`.
///
/// # Errors
/// There is none, or no answer.
pub async fn get(server: &AdminUrl, path: &str) -> Result<Bytes, AdminError> {
    let unreachable = |reason: String| AdminError::Unreachable(server.clone(), reason);
    let request = Request::get(path).body(Full::default()).map_err(|error| unreachable(error.to_string()))?;
    match send(server, request, PATIENCE).await? {
        (StatusCode::OK, bytes) => Ok(bytes),
        (status, _) => Err(AdminError::Refused(server.clone(), status, path.to_owned())),
    }
}

/// Has something begin. True if it does, and false if it is under way already.
///
/// # Errors
/// As [`change`].
pub async fn begin(server: &AdminUrl, token: Option<&Secret>, path: &str) -> Result<bool, AdminError> {
    match change(server, token, (Method::POST, path), Bytes::new(), PATIENCE).await {
        Ok(_) => Ok(true),
        Err(AdminError::Denied(_, StatusCode::CONFLICT, _)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has the server change something: `body` is JSON, `token` the operator's. Waits no longer than `patience`.
///
/// # Errors
/// It does not, and says why; or there is no answer.
pub async fn change(
    server: &AdminUrl,
    token: Option<&Secret>,
    (method, path): (Method, &str),
    body: Bytes,
    patience: Duration,
) -> Result<Bytes, AdminError> {
    let unreachable = |reason: String| AdminError::Unreachable(server.clone(), reason);
    let mut request =
        Request::builder().method(method).uri(path).header(MARK, "1").header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| unreachable("the token cannot be sent in a header".into()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(body)).map_err(|error| unreachable(error.to_string()))?;
    match send(server, request, patience).await? {
        (status, bytes) if status.is_success() => Ok(bytes),
        (status, bytes) => {
            let message = String::from_utf8_lossy(&bytes).trim().to_owned();
            Err(AdminError::Denied(server.clone(), status, message))
        }
    }
}

async fn send(
    server: &AdminUrl,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<(StatusCode, Bytes), AdminError> {
    let unreachable = |reason: String| AdminError::Unreachable(server.clone(), reason);
    let answer = timeout(patience, ask(server, request)).await;
    answer.map_err(|_elapsed| unreachable("no answer in time".into()))?.map_err(unreachable)
}

async fn ask(server: &AdminUrl, mut request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
    let socket = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(|error| error.to_string())?;
    let connected = http1::handshake::<_, Full<Bytes>>(TokioIo::new(socket)).await;
    let (mut sender, connection) = connected.map_err(|error| error.to_string())?;
    let connection = task::spawn("admin", connection);
    let host = server.to_string();
    let host = HeaderValue::from_str(host.trim_start_matches("http://")).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_host_and_a_port() {
        for (text, url) in [
            ("http://127.0.0.1:5080", "http://127.0.0.1:5080"),
            ("mirror.lan:5080/", "http://mirror.lan:5080"),
            ("http://[::1]:5080", "http://[::1]:5080"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().unwrap().to_string(), url);
        }
        for text in ["", "mirror.lan", "https://mirror.lan:5080", "http://a@b:1", "a:1/x", "a:99999", "a b:1"] {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
        let everywhere = AdminUrl::listening("0.0.0.0:5080".parse().unwrap());
        assert_eq!(everywhere.to_string(), "http://127.0.0.1:5080");
    }
}
