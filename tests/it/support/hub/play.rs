//! How a body goes out: at what pace, where it stops, and how it ends. Never decides what is in it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

use super::fault::Rule;
use super::seen::Ticket;
use super::wire::Line;

const CHUNK: u64 = 64 * 1024;
/// Parts per second of a slow body.
const BEATS: u64 = 20;

/// The hub ends a connection on purpose.
#[derive(Debug)]
pub struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut by a scripted fault")
    }
}

impl std::error::Error for Cut {}

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Cut {
        match never {}
    }
}

/// What happens at a stop.
#[derive(Clone)]
pub enum Act {
    /// Wait for the rule's release.
    Hold(Rule),
    /// End the connection.
    Close(Rule),
    /// Reset the connection.
    Reset(Rule),
}

/// A place in the body where something happens.
#[derive(Clone)]
pub struct Stop {
    /// The offset.
    pub at: u64,
    /// What happens.
    pub act: Act,
}

/// A body that is ready to go out.
pub struct Play {
    content: Bytes,
    endless: bool,
    pace: Option<u64>,
    stops: VecDeque<Stop>,
    position: u64,
}

impl Play {
    /// `stops` are in order.
    pub fn new(content: Bytes, endless: bool, pace: Option<u64>, stops: Vec<Stop>) -> Play {
        let endless = endless && !content.is_empty();
        Play { content, endless, pace, stops: stops.into(), position: 0 }
    }

    /// As a body for hyper, which `ticket` counts.
    pub fn body(self, line: Line, ticket: Ticket) -> UnsyncBoxBody<Bytes, Cut> {
        let frames = stream::unfold(Some((self, line, ticket)), |state| async {
            let (mut play, line, ticket) = state?;
            match play.next(&line).await {
                Ok(Some(bytes)) => {
                    ticket.sent(bytes.len() as u64);
                    Some((Ok(Frame::data(bytes)), Some((play, line, ticket))))
                }
                Ok(None) => None,
                Err(cut) => Some((Err(cut), None)),
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self, line: &Line) -> Result<Option<Bytes>, Cut> {
        while let Some(stop) = self.stops.pop_front_if(|stop| stop.at <= self.position) {
            // What stands before the stop must be on the wire before anything happens.
            line.drained().await;
            match stop.act {
                Act::Hold(rule) => rule.hold().await,
                Act::Close(rule) => {
                    rule.hit();
                    return Err(Cut);
                }
                Act::Reset(rule) => {
                    rule.hit();
                    line.reset_when_closed();
                    return Err(Cut);
                }
            }
        }
        let length = self.content.len() as u64;
        let offset = if self.endless { self.position % length } else { self.position };
        if offset == length {
            return Ok(None);
        }
        let mut size = CHUNK.min(length - offset);
        if let Some(stop) = self.stops.front() {
            size = size.min(stop.at - self.position);
        }
        if let Some(rate) = self.pace {
            size = size.min((rate / BEATS).max(1));
            tokio::time::sleep(Duration::from_micros(size * 1_000_000 / rate.max(1))).await;
        }
        self.position += size;
        Ok(Some(self.content.slice(offset as usize..(offset + size) as usize)))
    }
}
