//! The other end of the operator's address: how a command asks a running server. Plain HTTP, as the address speaks it.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::permission::MARK;
use crate::secret::Secret;
use crate::task;

/// How long a server may take over an answer in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long work that takes long may do so before its first step, when its order is looked at.
const FIRST_STEP: Duration = Duration::from_secs(300);
/// How long nothing may be heard of it then: the server says every ten seconds that it goes on.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest answer, in bytes: what a backup is told of a repository with some 200,000 manifests.
const MAX_ANSWER: usize = 64 << 20;

type Body = UnsyncBoxBody<Bytes, io::Error>;

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
    #[error("{2}")]
    Denied(AdminUrl, StatusCode, String),
    /// It began, and could not go on.
    #[error("{0}")]
    Failed(String),
}

/// Whether a server answers there, whatever it says.
pub async fn answers(server: &AdminUrl) -> bool {
    !matches!(get(server, "/livez").await, Err(AdminError::Unreachable(..)))
}

/// The page at `path`.
///
/// # Errors
/// There is none, or no answer.
pub async fn get(server: &AdminUrl, path: &str) -> Result<Bytes, AdminError> {
    let request = Request::get(path).body(whole(Bytes::new())).map_err(|error| unreachable(server, error))?;
    match send(server, request, PATIENCE).await? {
        (StatusCode::OK, bytes) => Ok(bytes),
        (status, _) => Err(AdminError::Refused(server.clone(), status, path.to_owned())),
    }
}

/// Has something begin. True if it does, and false if it is under way already.
///
/// # Errors
/// As [`post`].
pub async fn begin(server: &AdminUrl, token: Option<&Secret>, path: &str) -> Result<bool, AdminError> {
    match post(server, token, path, Bytes::new(), PATIENCE).await {
        Ok(_) => Ok(true),
        Err(AdminError::Denied(_, StatusCode::CONFLICT, _)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The page at `path`, which may take as long as `patience`.
///
/// # Errors
/// As [`get`].
pub async fn get_within(server: &AdminUrl, path: &str, patience: Duration) -> Result<Bytes, AdminError> {
    let request = Request::get(path).body(whole(Bytes::new())).map_err(|error| unreachable(server, error))?;
    accepted(server, send(server, request, patience).await?)
}

/// Has the server change something: `body` is JSON, `token` the operator's. Waits no longer than `patience`.
///
/// # Errors
/// It does not, and says why; or there is no answer.
pub async fn post(
    server: &AdminUrl,
    token: Option<&Secret>,
    path: &str,
    body: Bytes,
    patience: Duration,
) -> Result<Bytes, AdminError> {
    let request = order(server, token, path, body)?;
    accepted(server, send(server, request, patience).await?)
}

/// The same with a body of so many bytes that is made as it is sent.
///
/// # Errors
/// As [`post`].
pub async fn post_stream(
    server: &AdminUrl,
    token: Option<&Secret>,
    path: &str,
    (length, content): (u64, impl Stream<Item = io::Result<Bytes>> + Send + 'static),
    patience: Duration,
) -> Result<Bytes, AdminError> {
    let (mut head, _) = order(server, token, path, Bytes::new())?.into_parts();
    head.headers.insert(CONTENT_LENGTH, length.into());
    let body = StreamBody::new(content.map_ok(Frame::data)).boxed_unsync();
    accepted(server, send(server, Request::from_parts(head, body), patience).await?)
}

/// Has the server do something that may take long, of which it tells the steps; waits while it does. What becomes of it.
///
/// # Errors
/// It does not, and says why; or nothing is heard of it any more.
pub async fn work(server: &AdminUrl, token: Option<&Secret>, path: &str, body: Bytes) -> Result<Value, AdminError> {
    let request = order(server, token, path, body)?;
    let silent = |_elapsed| unreachable(server, "nothing was heard of the work any more");
    // Until the first step it says nothing, but for what is wrong.
    let began = timeout(FIRST_STEP, exchange(server, request)).await.map_err(silent)?;
    let (answer, connection) = began.map_err(|error| unreachable(server, error))?;
    let status = answer.status();
    let (mut body, mut rest, mut last) = (answer.into_body(), Vec::new(), None);
    while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(silent)? {
        let frame = frame.map_err(|error| unreachable(server, error))?;
        rest.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        if rest.len() > MAX_ANSWER {
            return Err(unreachable(server, "it says too much"));
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n').filter(|_| status.is_success()) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            last = serde_json::from_slice::<Value>(&line).ok().or(last);
        }
    }
    connection.abort();
    if !status.is_success() {
        return Err(denied(server, status, &rest));
    }
    let last: Value = serde_json::from_slice(&rest).ok().or(last).unwrap_or_default();
    match (last.get("done"), last.get("error").and_then(Value::as_str)) {
        (Some(done), _) => Ok(done.clone()),
        (None, Some(error)) => Err(AdminError::Failed(error.to_owned())),
        (None, None) => Err(unreachable(server, "the connection broke")),
    }
}

/// Has the server take something away. Waits no longer than `patience`.
///
/// # Errors
/// As [`post`].
pub async fn delete(
    server: &AdminUrl,
    token: Option<&Secret>,
    path: &str,
    patience: Duration,
) -> Result<Bytes, AdminError> {
    let mut request = order(server, token, path, Bytes::new())?;
    *request.method_mut() = Method::DELETE;
    accepted(server, send(server, request, patience).await?)
}

fn order(server: &AdminUrl, token: Option<&Secret>, path: &str, body: Bytes) -> Result<Request<Body>, AdminError> {
    let mut request = Request::post(path).header(MARK, "1").header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| unreachable(server, "the token cannot be sent in a header"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(whole(body)).map_err(|error| unreachable(server, error))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn accepted(server: &AdminUrl, (status, bytes): (StatusCode, Bytes)) -> Result<Bytes, AdminError> {
    if status.is_success() { Ok(bytes) } else { Err(denied(server, status, &bytes)) }
}

fn denied(server: &AdminUrl, status: StatusCode, bytes: &[u8]) -> AdminError {
    AdminError::Denied(server.clone(), status, String::from_utf8_lossy(bytes).trim().to_owned())
}

fn unreachable(server: &AdminUrl, reason: impl ToString) -> AdminError {
    AdminError::Unreachable(server.clone(), reason.to_string())
}

async fn send(
    server: &AdminUrl,
    request: Request<Body>,
    patience: Duration,
) -> Result<(StatusCode, Bytes), AdminError> {
    let ask = async {
        let (answer, connection) = exchange(server, request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
        connection.abort();
        Ok::<_, String>((status, body.to_bytes()))
    };
    let answer = timeout(patience, ask).await.map_err(|_elapsed| unreachable(server, "no answer in time"))?;
    answer.map_err(|reason| unreachable(server, reason))
}

async fn exchange(
    server: &AdminUrl,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), String> {
    let socket = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(|error| error.to_string())?;
    let connected = http1::handshake::<_, Body>(TokioIo::new(socket)).await;
    let (mut sender, connection) = connected.map_err(|error| error.to_string())?;
    let connection = task::spawn("admin", connection);
    let host = server.to_string();
    let host = HeaderValue::from_str(host.trim_start_matches("http://")).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok((answer, connection))
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
