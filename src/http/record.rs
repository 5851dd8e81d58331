//! One line and one count per request, written when its answer has been sent or cut off.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderValue, USER_AGENT};
use hyper::{Method, Response, StatusCode, Uri};

use super::activity::Failure;
use super::body::Body;
use super::endpoint::Endpoint;
use super::headers;
use super::metrics::Metrics;
use crate::cache::{BrokenStream, Outcome};
use crate::clock::Clock;
use crate::oci::{Digest, Reference};
use crate::task::RequestId;

/// What is known of a request while it is answered.
pub struct Record {
    clock: Clock,
    metrics: Metrics,
    id: RequestId,
    began: Instant,
    client: SocketAddr,
    method: Method,
    // As they came, for the log alone: what nobody reads is not written.
    target: Uri,
    agent: Option<HeaderValue>,
    endpoint: &'static str,
    outcome: Option<Outcome>,
    subject: Option<Digest>,
    is_fallback: bool,
    account: Option<Box<str>>,
    problem: Option<String>,
    is_failure: bool,
    // The image that is asked for by tag.
    pulled: Option<String>,
    // None if the client left before there was one.
    status: Option<StatusCode>,
    bytes: u64,
    // Bytes that the body should have, where that is known.
    promised: Option<u64>,
    ended: bool,
}

/// Longest text of a client's that is written down.
const MAX_TEXT: usize = 512;

impl Record {
    /// Begins with what the client sent.
    pub fn begin(clock: Clock, metrics: Metrics, client: SocketAddr, request: &hyper::Request<impl Sized>) -> Record {
        Record {
            id: RequestId::random(),
            began: clock.tick(),
            clock,
            metrics,
            client,
            method: request.method().clone(),
            target: request.uri().clone(),
            agent: request.headers().get(USER_AGENT).cloned(),
            endpoint: "none",
            outcome: None,
            subject: None,
            is_fallback: false,
            account: None,
            problem: None,
            is_failure: false,
            pulled: None,
            status: None,
            bytes: 0,
            promised: None,
            ended: false,
        }
    }

    /// What it is called: in its line, in the lines of what it causes, and in its answer.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// What it turned out to ask for.
    pub fn endpoint(&mut self, endpoint: &'static str) {
        self.endpoint = endpoint;
    }

    /// Whose account asks, as a password or a token has proved; nobody's name that was only claimed.
    pub fn account(&mut self, name: Option<&str>) {
        self.account = name.map(|name| name.chars().take(MAX_TEXT).collect());
    }

    /// How the answer came about, the digest that is served, and whether a fallback said that the tag means it.
    pub fn served(&mut self, outcome: Outcome, subject: Option<Digest>, is_fallback: bool) {
        (self.outcome, self.subject, self.is_fallback) = (Some(outcome), subject, is_fallback);
    }

    /// The digest that is pushed or served, where no cache had a part in it.
    pub fn about(&mut self, subject: Option<Digest>) {
        self.subject = subject;
    }

    /// Why there is none, and whether that is a failure of ours or of an upstream's, whatever the status says.
    pub fn failed(&mut self, problem: String, is_failure: bool) {
        (self.problem, self.is_failure) = (Some(problem), is_failure);
    }

    /// What it asks for, if it is a pull as people count them: by tag, for what follows is asked for by digest.
    pub fn pulls(&mut self, repository: &impl fmt::Display, endpoint: &Endpoint) {
        if let Endpoint::Manifest(_, Reference::Tag(tag)) = endpoint {
            let mut image = String::with_capacity(96);
            // A string takes whatever is written.
            let _ = write!(image, "{repository}:{tag}");
            self.pulled = Some(image);
        }
    }

    /// Goes along with the answer until its last byte.
    pub fn attach(mut self, mut response: Response<Body>) -> Response<Recorded> {
        if let Ok(id) = HeaderValue::from_str(self.id.as_str()) {
            response.headers_mut().insert(headers::REQUEST_ID, id);
        }
        self.status = Some(response.status());
        self.ended = response.body().is_end_stream();
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        self.promised = length.filter(|_| !self.ended);
        response.map(|body| Recorded { body, record: self })
    }

    /// Called for each frame; the first one counts. What no cache decided has no outcome, and is over in no time.
    fn first_byte(&mut self) {
        if self.bytes == 0
            && let Some(outcome) = self.outcome
        {
            let waited = self.clock.tick().saturating_duration_since(self.began);
            self.metrics.began_to_answer(outcome.as_str(), waited.as_secs_f64());
        }
    }

    /// For the operator's page.
    fn remember(&mut self) {
        let (at, activity) = (self.clock.unix_seconds(), self.metrics.activity());
        let is_given = self.status.is_some_and(|status| status.is_success());
        let pulled = self.pulled.take().filter(|_| is_given).map(|image| (image, self.client.ip()));
        activity.answered(at, self.outcome, self.bytes, pulled);
        let Some(status) = self.status else { return };
        if self.is_failure || status.is_server_error() {
            let reason = self.problem.clone().unwrap_or_default();
            let path = Printable(self.target.path().as_bytes()).to_string();
            activity.failed(Failure { at, path, status: status.as_u16(), reason });
        }
    }

    fn method(&self) -> &'static str {
        match self.method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        }
    }
}

/// Clients choose this text: no control character of theirs reaches a terminal or a log file.
struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        if text.len() <= MAX_TEXT && !text.contains(char::is_control) {
            return f.write_str(&text);
        }
        text.chars().take(MAX_TEXT).try_for_each(|c| f.write_char(if c.is_control() { '\u{fffd}' } else { c }))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.clock.tick().saturating_duration_since(self.began);
        let outcome = self.outcome.map_or("none", Outcome::as_str);
        let status = self.status.as_ref().map_or("0", StatusCode::as_str);
        self.metrics.answered(self.endpoint, self.method(), status, outcome, self.bytes, elapsed.as_secs_f64());
        self.remember();
        tracing::info!(
            target: "larder::access",
            request = self.id.as_str(),
            client = %self.client.ip(),
            // As a text and not as it prints: quoted, and escaped.
            account = self.account.as_deref(),
            method = self.method(),
            path = %Printable(self.target.path().as_bytes()),
            status = self.status.map_or(0, |status| status.as_u16()),
            outcome,
            digest = self.subject.map(tracing::field::display),
            fallback = self.is_fallback.then_some(true),
            size_bytes = self.bytes,
            duration_ms = elapsed.as_millis() as u64,
            // The server does not ask a body for more than it promised, so the end need not be seen.
            complete = self.ended || self.promised == Some(self.bytes),
            agent = %Printable(self.agent.as_ref().map(HeaderValue::as_bytes).unwrap_or_default()),
            problem = self.problem.as_deref(),
            "request"
        );
    }
}

/// An answer's body, counted while it is sent.
pub struct Recorded {
    body: Body,
    record: Record,
}

impl hyper::body::Body for Recorded {
    type Data = Bytes;
    type Error = BrokenStream;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenStream>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.first_byte();
                self.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => self.record.failed(error.to_string(), true),
            Poll::Ready(None) => self.record.ended = true,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
