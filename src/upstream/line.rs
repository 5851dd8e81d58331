//! The line to one upstream: what goes over it at a time, what is counted, and the answers that come back.
//!
//! Every answer's body is read here, under one time limit per piece. Never decides what an answer means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::{Part, Phase, UpstreamError};
use super::flow::{Flow, Shares};
use super::headers::{self, RateLimit};
use super::metrics::{Kind, Meter};
use super::transport::{Bodiless, Transport, describe};
use crate::clock::Clock;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("larder/", env!("CARGO_PKG_VERSION")));
/// What of an unwanted body is read, so that its connection can be used again, and for how long.
const DISCARDED: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// A place among the requests that are under way.
#[derive(Default)]
pub struct Place {
    _ahead: Option<OwnedSemaphorePermit>,
    // None only if no requests are taken any more.
    _place: Option<OwnedSemaphorePermit>,
}

/// One upstream's line.
pub struct Line {
    transport: Transport,
    meter: Meter,
    clock: Clock,
    stall_timeout: Duration,
    downloads: Arc<Semaphore>,
    /// Fewer: what nobody waits for leaves places to clients who do.
    ahead: Arc<Semaphore>,
    /// Apart from the downloads, so that a manifest never waits behind layers.
    others: Arc<Semaphore>,
    rate_limit: Mutex<Option<RateLimit>>,
    shares: Option<Arc<Shares>>,
}

impl Line {
    /// A line for `width` downloads, and as many other requests, at a time, whose bytes are limited by `shares`.
    pub fn new(
        transport: Transport,
        meter: Meter,
        clock: Clock,
        stall_timeout: Duration,
        width: usize,
        shares: Option<Arc<Shares>>,
    ) -> Line {
        let places = |width: usize| Arc::new(Semaphore::new(width.max(1)));
        let kept_free = (width / 4).max(1);
        let (downloads, ahead, others) = (places(width), places(width.saturating_sub(kept_free)), places(width));
        Line { transport, meter, clock, stall_timeout, downloads, ahead, others, rate_limit: Mutex::new(None), shares }
    }

    /// Waits for a place. Who has one must not wait for another: a token is fetched before or after, never meanwhile.
    pub async fn place(&self, kind: Kind, flow: Option<&Flow>) -> Place {
        let places = if kind == Kind::Blob { &self.downloads } else { &self.others };
        let _ahead = match flow {
            Some(flow) if !flow.is_foreground() => tokio::select! {
                place = self.ahead.clone().acquire_owned() => place.ok(),
                () = flow.foreground() => None,
            },
            _ => None,
        };
        Place { _ahead, _place: places.clone().acquire_owned().await.ok() }
    }

    /// Whether who wants to download has to wait for others: for a place, or for a share of the bytes.
    pub fn is_crowded(&self) -> bool {
        self.downloads.available_permits() == 0 || self.shares.as_ref().is_some_and(|shares| shares.is_busy())
    }

    /// The answer to `question`, which is for `part`.
    pub async fn send(
        self: &Arc<Self>,
        kind: Kind,
        part: Part,
        mut question: Bodiless,
    ) -> Result<Answer, UpstreamError> {
        question.headers_mut().insert(USER_AGENT, AGENT);
        question.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let began = self.clock.tick();
        let outcome = self.transport.send(part, question).await;
        let status = outcome.as_ref().map(|head| head.status().as_u16());
        self.meter.request(kind, status, self.clock.tick().duration_since(began));
        self.meter.health(part, status.is_ok_and(|status| status < 500));
        let (head, body) = outcome?.into_parts();
        if part == Part::Registry
            && let Some(told) = headers::rate_limit(&head.headers)
        {
            self.meter.rate_limit(told);
            *self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }
        let (line, _place) = (self.clone(), Place::default());
        let answer =
            Answer { status: head.status, headers: head.headers, part, body, line, flow: None, owed: 0, _place };
        match headers::encoding(&answer.headers) {
            Some(encoding) if answer.status.is_success() => {
                Err(answer
                    .invalid(&format!("its content is packed, as {}, although we refuse that", excerpt(encoding))))
            }
            _ => Ok(answer),
        }
    }

    /// What the registry last told about its rate limit.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        *self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a part wants to be left alone.
    pub fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        headers::retry_after(headers, self.clock.unix_seconds())
    }

    /// Notes that `part` is not in working order.
    pub fn fault(&self, part: Part) {
        self.meter.health(part, false);
    }
}

/// The beginning of what a stranger wrote, short enough for a message.
pub fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

/// An answer whose body is still on its way.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Whose it is.
    pub part: Part,
    body: Incoming,
    line: Arc<Line>,
    flow: Option<Flow>,
    /// Bytes that were read and not paid for yet.
    owed: usize,
    /// Given back when this is dropped.
    _place: Place,
}

impl Answer {
    /// Keeps `place` until the body has been read or dropped, and reads it in `flow`.
    pub fn keeping(mut self, place: Place, flow: Option<Flow>) -> Answer {
        (self._place, self.flow) = (place, flow);
        self
    }

    /// The next bytes of the body; `None` at its end. Bodies with a length end early with an error only. Given up, it has
    /// lost nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let part = self.part;
        // Paid for before the next ones, and outside of their time limit: that we wait is not the upstream's fault.
        if let Some(flow) = &self.flow {
            flow.turn(self.owed).await;
            self.owed = 0;
        }
        loop {
            let frame = match timeout(self.line.stall_timeout, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(self.fault(UpstreamError::Cut { part, reason: describe(&error) }));
                }
                Err(_) => return Err(self.fault(UpstreamError::TimedOut { part, phase: Phase::Body })),
            };
            // Trailers say nothing to us.
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                self.line.meter.bytes(bytes.len());
                self.owed += bytes.len();
                return Ok(Some(bytes));
            }
        }
    }

    /// The whole body, if it has no more than `limit` bytes.
    pub async fn whole(&mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        let mut whole = BytesMut::new();
        if headers::content_length(&self.headers).is_some_and(|length| length > limit as u64) {
            return Err(self.invalid(&format!("it is larger than {limit} bytes")));
        }
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > limit {
                return Err(self.invalid(&format!("it is larger than {limit} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Gets rid of a body that nobody wants, and of the place.
    pub async fn discard(mut self) -> HeaderMap {
        let (limit, time) = DISCARDED;
        // Whatever comes of it: without it, the connection is closed.
        let _ = timeout(time, Limited::new(&mut self.body, limit).collect()).await;
        std::mem::take(&mut self.headers)
    }

    /// The error for an answer that cannot be used.
    pub fn invalid(&self, reason: &str) -> UpstreamError {
        self.fault(UpstreamError::Invalid { part: self.part, reason: reason.into() })
    }

    /// The error for a status that is no answer.
    pub fn unexpected(&self) -> UpstreamError {
        self.fault(UpstreamError::Status { part: self.part, status: self.status.as_u16() })
    }

    /// Passes `error` on, and notes that its part is not in working order.
    pub fn fault(&self, error: UpstreamError) -> UpstreamError {
        self.line.fault(error.part());
        error
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(shares) = &self.line.shares
            && self.owed > 0
        {
            shares.spend(self.owed);
        }
    }
}
