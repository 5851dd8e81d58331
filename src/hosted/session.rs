//! One upload while this process knows it: whose turn it is, and taking in bytes.
//!
//! A request holds its turn to its end, also when its client has left and only a write is still under way: so the next
//! one finds all that came before it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::error::HostedError;
use crate::clock::Clock;
use crate::storage::{StorageError, Upload, UploadRecord};
use crate::task;

/// Bytes that are written at once; so much of an upload is in memory, and as much again in hyper.
const BATCH: usize = 1 << 20;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Largest blob that is taken, in bytes.
pub const MAX_BLOB: u64 = 1 << 40;

/// A turn at an upload.
pub type Turn = OwnedMutexGuard<Option<Upload>>;

/// Where a chunk belongs: first and last byte, as its `Content-Range` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRange {
    /// Its first byte.
    pub first: u64,
    /// Its last byte.
    pub last: u64,
}

/// An upload that someone may go on with.
pub struct Session {
    /// Whose it is.
    pub record: UploadRecord,
    // Opened by the first turn after a restart.
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    used: Mutex<Instant>,
}

impl Session {
    /// One that is known of, and opened or not.
    pub fn new(record: UploadRecord, upload: Option<Upload>, now: Instant) -> Session {
        Session { record, upload: Arc::new(tokio::sync::Mutex::new(upload)), used: Mutex::new(now) }
    }

    /// Waits for a turn.
    pub async fn turn(&self, clock: &Clock) -> Result<Turn, HostedError> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = clock.tick();
        timeout(TURN, self.upload.clone().lock_owned()).await.map_err(|_elapsed| HostedError::UploadInUse)
    }

    /// Whether nobody has used it for that long, or uses it now.
    pub fn is_idle(&self, now: Instant, for_at_least: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(used) >= for_at_least && self.upload.try_lock().is_ok()
    }
}

/// Bytes that have come so far.
pub fn received(turn: &Turn) -> u64 {
    turn.as_ref().map_or(0, Upload::received)
}

/// Takes in a request's body, behind what has come before it. What came before the client broke off stays; a chunk that
/// contradicts itself leaves no trace.
pub async fn take_in<E: std::fmt::Display>(
    mut turn: Turn,
    range: Option<ChunkRange>,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Turn, HostedError> {
    let before = received(&turn);
    if range.is_some_and(|range| range.first != before) {
        return Err(HostedError::OutOfOrder { received: before });
    }
    let promised = range.map(|range| (range.last - range.first).saturating_add(1));
    let most = before.saturating_add(promised.unwrap_or(u64::MAX)).min(MAX_BLOB);
    let mut ended = None;
    while ended.is_none() {
        let (mut pieces, mut length) = (Vec::new(), 0);
        while length < BATCH && ended.is_none() {
            match body.next().await {
                Some(Ok(piece)) => {
                    length += piece.len();
                    pieces.push(piece);
                }
                Some(Err(error)) => ended = Some(Err(HostedError::Body(error.to_string()))),
                None => ended = Some(Ok(())),
            }
        }
        if received(&turn) + length as u64 > most {
            let refused = if promised.is_some() { HostedError::WrongLength } else { HostedError::TooLarge(MAX_BLOB) };
            ended = Some(Err(refused));
        } else {
            turn = with(turn, move |upload| upload.append(&pieces)).await?;
        }
    }
    let came = received(&turn) - before;
    match ended.unwrap_or(Ok(())) {
        Ok(()) if promised.is_none_or(|promised| promised == came) => Ok(turn),
        Ok(()) | Err(HostedError::WrongLength) => {
            with(turn, move |upload| upload.go_back_to(before)).await?;
            Err(HostedError::WrongLength)
        }
        Err(error) => Err(error),
    }
}

/// Works on the upload on a thread that may block. The turn goes along, so that it lasts until the work is done.
fn with(
    mut turn: Turn,
    work: impl FnOnce(&mut Upload) -> Result<(), StorageError> + Send + 'static,
) -> impl Future<Output = Result<Turn, HostedError>> {
    task::blocking(move || match turn.as_mut() {
        Some(upload) => work(upload).map(|()| turn).map_err(HostedError::from),
        None => Err(HostedError::NoUpload),
    })
}
