//! The body of a request, which a client cannot take for ever to send. Never buffers: that is hyper's, one frame at most.
//!
//! The client has a patience of ours to live on: waiting for it consumes patience, and what arrives restores it. So one
//! rule ends both a client that falls silent and one that sends a byte now and then.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep};

/// What buys one second. A real push is a thousand times faster.
const BYTES_PER_SECOND: u64 = 1024;

/// The body of a request.
pub struct RequestBody {
    incoming: Incoming,
    patience: Duration,
    left: Duration,
    waiting: Option<Instant>,
    /// Made by the first wait, and reset by every later one. A request without a body has none.
    end: Option<Pin<Box<Sleep>>>,
}

/// Why a request body ended before its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It came too slowly, or not at all.
    #[error("the request body stalled: nothing, or next to nothing, came for {0:?}")]
    Stalled(Duration),
    /// The connection broke, or what came on it was no body.
    #[error("the request body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

impl RequestBody {
    /// A body for whose next frame nobody waits longer than `patience`.
    pub fn new(incoming: Incoming, patience: Duration) -> RequestBody {
        RequestBody { incoming, patience, left: patience, waiting: None, end: None }
    }

    fn arrived(&mut self, bytes: u64) {
        let waited = self.waiting.take().map_or(Duration::ZERO, |since| since.elapsed());
        let bought = Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND);
        self.left = self.left.saturating_sub(waited).saturating_add(bought).min(self.patience);
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.left)));
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            end.as_mut().reset(now + self.left);
        }
        end.as_mut().poll(cx)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                self.arrived(bytes as u64);
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Poll::Pending => self.poll_stalled(cx).map(|()| Some(Err(BodyError::Stalled(self.patience)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
