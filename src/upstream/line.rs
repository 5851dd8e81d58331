//! The line to one upstream: what goes over it at a time, what is counted, and the answers that come back.
//!
//! Every answer's body is read here, under one time limit per piece. Never decides what an answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::allowance::Allowance;
use super::cause::describe;
use super::error::{Part, Phase, UpstreamError};
use super::flow::{Flow, Shares};
use super::headers;
use super::health::Health;
use super::metrics::{Kind, Meter};
use super::question::{By, Question};
use super::transport::{Bodiless, Transport};
use crate::clock::Clock;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("larder/", env!("CARGO_PKG_VERSION")));
/// What of an unwanted body is read, so that its connection can be used again, and for how long.
const DISCARDED: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// A place among the requests that are under way.
#[derive(Default)]
pub struct Place {
    _ahead: Option<OwnedSemaphorePermit>,
    // None for the probe, and if no requests are taken any more.
    _place: Option<OwnedSemaphorePermit>,
}

/// One upstream's line.
pub struct Line {
    transport: Transport,
    meter: Meter,
    health: Arc<Health>,
    allowance: Arc<Allowance>,
    clock: Clock,
    stall_timeout: Duration,
    downloads: Arc<Semaphore>,
    /// Fewer: what nobody waits for leaves places to clients who do.
    ahead: Arc<Semaphore>,
    /// Apart from the downloads, so that a manifest never waits behind layers.
    others: Arc<Semaphore>,
    shares: Option<Arc<Shares>>,
}

impl Line {
    /// A line to the host of that health and allowance, on which a body may stall for so long, with `width` places for
    /// downloads and as many for other requests, whose bytes are limited by `shares`.
    pub fn new(
        transport: Transport,
        meter: Meter,
        (health, allowance): (Arc<Health>, Arc<Allowance>),
        clock: Clock,
        (stall_timeout, width): (Duration, usize),
        shares: Option<Arc<Shares>>,
    ) -> Line {
        let places = |width: usize| Arc::new(Semaphore::new(width.max(1)));
        let kept_free = (width / 4).max(1);
        let (downloads, ahead, others) = (places(width), places(width.saturating_sub(kept_free)), places(width));
        Line { transport, meter, health, allowance, clock, stall_timeout, downloads, ahead, others, shares }
    }

    /// The host's health.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// What the host allows us.
    pub fn allowance(&self) -> &Arc<Allowance> {
        &self.allowance
    }

    /// Waits for a place from which to ask `part`, while it is not known to be out of order. Who has one must not wait
    /// for another: a token is fetched before or after, never meanwhile. The probe has a place already.
    pub async fn place(&self, part: Part, question: &Question) -> Result<Place, UpstreamError> {
        if question.by == By::Probe {
            return Ok(Place::default());
        }
        self.health.admit(part)?;
        let place = tokio::select! {
            place = self.turn(question) => place,
            down = self.health.until_down(part) => return Err(down),
        };
        self.admit(part, question)?;
        Ok(place)
    }

    async fn turn(&self, question: &Question) -> Place {
        let places = if question.kind == Kind::Blob { &self.downloads } else { &self.others };
        let _ahead = match &question.flow {
            Some(flow) if !flow.is_foreground() => tokio::select! {
                place = self.ahead.clone().acquire_owned() => place.ok(),
                () = flow.foreground() => None,
            },
            _ => None,
        };
        Place { _ahead, _place: places.clone().acquire_owned().await.ok() }
    }

    /// A place for the probe, if nobody needs it.
    pub fn place_to_spare(&self) -> Option<Place> {
        let place = self.others.clone().try_acquire_owned().ok()?;
        Some(Place { _ahead: None, _place: Some(place) })
    }

    /// Leave to ask `part` now.
    pub fn admit(&self, part: Part, question: &Question) -> Result<(), UpstreamError> {
        if question.by == By::Probe { Ok(()) } else { self.health.admit(part) }
    }

    /// Whether who wants to download has to wait for others: for a place, or for a share of the bytes.
    pub fn is_crowded(&self) -> bool {
        self.downloads.available_permits() == 0 || self.shares.as_ref().is_some_and(|shares| shares.is_busy())
    }

    /// The answer to `request`, which is for `part` and asks `question`.
    pub async fn send(
        self: &Arc<Self>,
        part: Part,
        question: &Arc<Question>,
        mut request: Bodiless,
    ) -> Result<Answer, UpstreamError> {
        request.headers_mut().insert(USER_AGENT, AGENT);
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let began = self.clock.tick();
        let on_wire = self.health.sent(part, question);
        let outcome = self.transport.send(part, request).await;
        let status = outcome.as_ref().map(|head| head.status().as_u16());
        self.meter.request(question.kind, status, self.clock.tick().duration_since(began));
        let (head, body) = outcome?.into_parts();
        on_wire.answered();
        let (line, question, _place) = (self.clone(), question.clone(), Place::default());
        let (status, headers) = (head.status, head.headers);
        let answer = Answer { status, headers, part, question, body, line, flow: None, owed: 0, _place };
        match headers::encoding(&answer.headers) {
            Some(encoding) if answer.status.is_success() => {
                Err(answer
                    .invalid(&format!("its content is packed, as {}, although we refuse that", excerpt(encoding))))
            }
            _ => Ok(answer),
        }
    }

    /// How long a part wants to be left alone.
    pub fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        headers::retry_after(headers, self.clock.unix_seconds())
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
    question: Arc<Question>,
    body: Incoming,
    line: Arc<Line>,
    flow: Option<Flow>,
    /// Bytes that were read and not paid for yet.
    owed: usize,
    /// Given back when this is dropped.
    _place: Place,
}

impl Answer {
    /// Keeps `place` until the body has been read or dropped, and reads it in the question's flow.
    pub fn keeping(mut self, place: Place) -> Answer {
        (self._place, self.flow) = (place, self.question.flow.clone());
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
            return Err(self.fault(self.invalid(&format!("it is larger than {limit} bytes"))));
        }
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > limit {
                return Err(self.fault(self.invalid(&format!("it is larger than {limit} bytes"))));
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
        UpstreamError::Invalid { part: self.part, reason: reason.into() }
    }

    /// The error for a status that is no answer.
    pub fn unexpected(&self) -> UpstreamError {
        UpstreamError::Status { part: self.part, status: self.status.as_u16() }
    }

    /// Passes `error`, which came to light behind the head, on to the host's health and to who called.
    pub fn fault(&self, error: UpstreamError) -> UpstreamError {
        self.line.health.failed(&self.question, &error);
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
