//! The answers of the operator's address: a page, a value, or a long piece of work told step by step.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

use crate::task;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// One JSON value on each line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Steps that a slow reader may be behind.
const STEPS: usize = 16;
/// When there is nothing to tell for so long, an empty line says that the work goes on.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// A text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}

/// A value.
pub fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = text(StatusCode::OK, bytes);
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Work that tells its steps: one line of JSON for each, then `{"done": …}` or `{"error": …}`. What fails before its first
/// step is answered with its status. The work ends when the reader goes.
pub async fn steps<T, E, W, F>(name: &'static str, work: W, status: impl Fn(&E) -> StatusCode) -> Response<Body>
where
    W: FnOnce(Sender<Value>) -> F,
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let (progress, mut told) = channel::<Value>(STEPS);
    let (listener, work) = (progress.clone(), work(progress));
    let mut working = task::spawn(name, async move {
        tokio::select! {
            ended = work => Some(ended),
            () = listener.closed() => None,
        }
    });
    let first = tokio::select! {
        biased;
        ended = &mut working => Err(ended),
        step = told.recv() => match step {
            Some(step) => Ok(step),
            None => Err((&mut working).await),
        },
    };
    let first = match first {
        Ok(step) => step,
        Err(Ok(Some(Ok(done)))) => return self::json(&json!({"done": done})),
        Err(Ok(Some(Err(error)))) => return text(status(&error), format!("{error}\n")),
        Err(Ok(None) | Err(_)) => return text(StatusCode::INTERNAL_SERVER_ERROR, "the work was abandoned\n"),
    };
    let state = (told, Some(working), Some(first));
    let lines = stream::unfold(state, |(mut told, mut working, first)| async move {
        if let Some(step) = first {
            return Some((line(&step), (told, working, None)));
        }
        let ended = working.as_mut()?;
        let said = tokio::select! {
            biased;
            step = timeout(SIGN_OF_LIFE, told.recv()) => match step {
                Ok(Some(step)) => return Some((line(&step), (told, working, None))),
                Ok(None) => ended.await,
                Err(_elapsed) => return Some((Ok(Frame::data(Bytes::from_static(b"\n"))), (told, working, None))),
            },
            ended = &mut *ended => ended,
        };
        let last = match said {
            Ok(Some(Ok(done))) => json!({"done": done}),
            Ok(Some(Err(error))) => json!({"error": error.to_string()}),
            Ok(None) | Err(_) => json!({"error": "the work was abandoned"}),
        };
        Some((line(&last), (told, None, None)))
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, LINES);
    response
}

fn line(value: &Value) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(format!("{value}\n").into()))
}
