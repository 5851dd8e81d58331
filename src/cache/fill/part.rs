//! One part of a fill: the bytes of one span, from upstream to their place in the file.
//!
//! A connection that breaks is taken up again where it broke. Never hashes and never decides what is right: it says how
//! far its bytes have landed, and the fill follows.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::cache::room::Rooms;
use crate::oci::{Digest, RepoName};
use crate::storage::{Landing, Room, StorageError};
use crate::task;
use crate::upstream::{BlobBody, Flow, Span, Upstream, UpstreamError};

/// Most bytes that are held before they are written.
const BATCH: usize = 256 << 10;
/// Pauses before a broken connection is taken up again; one that brings [`PROGRESS`] bytes starts the list anew.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(4)];

const PROGRESS: u64 = 1 << 20;

/// Who asks whom for what.
#[derive(Clone)]
pub struct Source {
    /// The registry.
    pub upstream: Upstream,
    /// The fill's share of the line.
    pub flow: Flow,
    /// The repository that it is asked in.
    pub repo: RepoName,
    /// The blob.
    pub digest: Digest,
    /// Set when a part of it is asked for: then it may be put together from two that differ.
    pub is_pieced: Arc<AtomicBool>,
}

/// That the bytes of `span.start..upto` have landed.
#[derive(Clone, Copy, Debug)]
pub struct Landed {
    /// Which part they belong to.
    pub span: Span,
    /// Behind the last of them.
    pub upto: u64,
}

/// Why a part will not be complete.
#[derive(Debug)]
pub enum PartError {
    /// Upstream fails, again and again.
    Upstream(UpstreamError),
    /// Upstream's blob has another length than it had.
    Changed,
    /// The disk fails.
    Storage(StorageError),
    /// More bytes came than a blob of unannounced length may have.
    TooLong,
    /// The fill has ended without it.
    Cancelled,
}

/// A part being fetched.
pub struct Part {
    source: Source,
    span: Span,
    at: u64,
    total: Option<u64>,
    limit: u64,
    landing: Landing,
    room: (Rooms, Room),
    landed: mpsc::Sender<Landed>,
}

impl Part {
    /// `span` of a blob of `total` bytes, if that is known, and at most `limit`.
    pub fn new(
        source: Source,
        span: Span,
        total: Option<u64>,
        limit: u64,
        landing: Landing,
        room: (Rooms, Room),
        landed: mpsc::Sender<Landed>,
    ) -> Part {
        Part { source, span, at: span.start, total, limit, landing, room, landed }
    }

    /// Runs to the end of the span, beginning with a body that is open already, if there is one.
    pub async fn run(mut self, open: Option<BlobBody>) -> Result<(), PartError> {
        let mut open = open;
        let mut pauses = PAUSES.iter();
        loop {
            let before = self.at;
            let error = match self.attempt(open.take()).await {
                Ok(()) => return Ok(()),
                Err(PartError::Upstream(error)) => error,
                Err(error) => return Err(error),
            };
            // It broke behind its last byte.
            if self.end() == Some(self.at) {
                return Ok(());
            }
            if self.at >= before + PROGRESS {
                pauses = PAUSES.iter();
            }
            let Some(pause) = pauses.next() else { return Err(PartError::Upstream(error)) };
            tracing::info!(digest = %self.source.digest, at = self.at, %error, "a fill broke and is taken up again");
            self.unless_cancelled(sleep(*pause)).await?;
        }
    }

    /// A write that has begun is never left behind: only waiting for others is given up.
    async fn unless_cancelled<T>(&self, wait: impl Future<Output = T>) -> Result<T, PartError> {
        tokio::select! {
            done = wait => Ok(done),
            () = self.landed.closed() => Err(PartError::Cancelled),
        }
    }

    fn end(&self) -> Option<u64> {
        self.span.end.or(self.total)
    }

    async fn attempt(&mut self, open: Option<BlobBody>) -> Result<(), PartError> {
        let body = match open {
            Some(body) => body,
            None => {
                let Source { upstream, flow, repo, digest, is_pieced } = &self.source;
                is_pieced.store(true, Ordering::Relaxed);
                let rest = Span { start: self.at, end: self.span.end };
                self.unless_cancelled(upstream.blob(repo, digest, rest, flow)).await?.map_err(PartError::Upstream)?
            }
        };
        if body.total.zip(self.total).is_some_and(|(now, before)| now != before) {
            return Err(PartError::Changed);
        }
        // An upstream that does not know ranges begins at 0 and goes on behind our end.
        let mut incoming = Incoming { surplus: self.at.saturating_sub(body.start), body, failed: None };
        while self.end() != Some(self.at) {
            let batch = self.unless_cancelled(incoming.next_batch()).await?.map_err(PartError::Upstream)?;
            let Some(batch) = batch else { return Ok(()) };
            self.land(batch).await?;
        }
        Ok(())
    }

    async fn land(&mut self, mut batch: Vec<Bytes>) -> Result<(), PartError> {
        if let Some(end) = self.end() {
            let mut room = end - self.at;
            for piece in &mut batch {
                piece.truncate(room.min(piece.len() as u64) as usize);
                room -= piece.len() as u64;
            }
        }
        let (landing, at) = (self.landing.clone(), self.at);
        let upto = at + batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if upto > self.limit {
            return Err(PartError::TooLong);
        }
        // Of a length that nobody had to stand for, only what has come takes room.
        let (rooms, room) = &self.room;
        rooms.cover(room, upto).await.map_err(PartError::Storage)?;
        let written = task::blocking(move || {
            batch.iter().try_fold(at, |at, piece| landing.write_at(at, piece).map(|()| at + piece.len() as u64))
        });
        self.at = written.await.map_err(PartError::Storage)?;
        // Nobody listens to a fill that has failed; this part is dropped with it.
        let _ = self.landed.send(Landed { span: self.span, upto: self.at }).await;
        Ok(())
    }
}

/// A body, and how many bytes of it are here already and are read past.
struct Incoming {
    body: BlobBody,
    surplus: u64,
    // An error that came while a batch was gathered: the batch goes first.
    failed: Option<UpstreamError>,
}

impl Incoming {
    /// What has arrived: one write for many small pieces. `None` is the end.
    async fn next_batch(&mut self) -> Result<Option<Vec<Bytes>>, UpstreamError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(first) = self.body.next().await? else { return Ok(None) };
        let mut length = first.len();
        let mut batch = vec![self.unseen(first)];
        while length < BATCH {
            match self.body.next().now_or_never() {
                Some(Ok(Some(piece))) => {
                    length += piece.len();
                    batch.push(self.unseen(piece));
                }
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                // The end comes again at the next call.
                Some(Ok(None)) | None => break,
            }
        }
        Ok(Some(batch))
    }

    fn unseen(&mut self, mut piece: Bytes) -> Bytes {
        let seen = self.surplus.min(piece.len() as u64);
        self.surplus -= seen;
        piece.split_off(seen as usize)
    }
}
