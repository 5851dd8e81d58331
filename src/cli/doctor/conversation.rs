//! One question over HTTP on a connection that is there already, be it TCP, TLS or a Unix socket. Never connects.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{DATE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::task;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// When the other side says it is.
    pub(super) date: Option<String>,
    pub(super) body: Bytes,
}

/// Why nothing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoReply {
    /// Not in time.
    Silent,
    /// What came is no HTTP, or was cut.
    Broken(String),
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'a> {
    Get(&'a str),
    /// Without a body.
    Post(&'a str),
}

/// Asks it of `host`, and waits `patience` at most for all of the answer.
///
/// # Errors
/// There is none.
pub(super) async fn ask<S>(socket: S, question: Question<'_>, host: &str, patience: Duration) -> Result<Reply, NoReply>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match timeout(patience, converse(socket, question, host)).await {
        Ok(done) => done.map_err(NoReply::Broken),
        Err(_elapsed) => Err(NoReply::Silent),
    }
}

async fn converse<S>(socket: S, question: Question<'_>, host: &str) -> Result<Reply, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (method, path) = match question {
        Question::Get(path) => (Method::GET, path),
        Question::Post(path) => (Method::POST, path),
    };
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(socket)).await.map_err(|error| said(&error))?;
    let connection = Abandoned(task::spawn("doctor", connection));
    let request = Request::builder().method(method).uri(path).header(HOST, host);
    let request = request.header(USER_AGENT, concat!("larder-doctor/", env!("CARGO_PKG_VERSION")));
    let request = request.body(Empty::new()).map_err(|error| said(&error))?;
    let response = sender.send_request(request).await.map_err(|error| said(&error))?;
    let status = response.status().as_u16();
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    drop(connection);
    Ok(Reply { status, date, body: body.to_bytes() })
}

/// A connection that ends with who asked on it.
struct Abandoned<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Abandoned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An error with what caused it: hyper's own text leaves that out.
pub(super) fn said(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
