//! What a client gets of a blob: a finished file or one that still grows, read by position at the client's own pace.
//!
//! A reader holds one chunk, or only the place of one. It never decides when a blob is complete: a body ends early only by
//! an error. A range that ends before the last bytes of a blob still on its way is passed on unverified, because only the
//! whole can be verified: whoever asks for ranges of it (lazy pulling) has an index of its own to verify by.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::flight::{Progress, Seat};
use super::passage::Passage;
use crate::cache::error::CacheError;
use crate::cache::metrics::Held;
use crate::cache::outcome::Outcome;
use crate::oci::ByteRange;
use crate::storage::{BlobFile, Extent, StorageError, is_lost};
use crate::task;
use crate::upstream::{BlobBody, UpstreamError};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// How often one reader has a blob fetched anew that is damaged: a disk that damages all it is given ends it.
const MAX_HEALED: u32 = 2;

/// Makes a blob whole again whose file is found to be damaged.
pub(in crate::cache) trait Heal: Send + Sync {
    /// The same blob, from a file that is right, or while it is fetched.
    fn heal(&self) -> Pin<Box<dyn Future<Output = Result<Blob, CacheError>> + Send + '_>>;
}

/// A blob that can be read.
pub struct Blob {
    /// Length in bytes; unknown only while it is fetched from an upstream that does not tell.
    pub size: Option<u64>,
    /// Where it comes from.
    pub outcome: Outcome,
    pub(in crate::cache) source: Source,
    pub(in crate::cache) healer: Arc<dyn Heal>,
}

pub(in crate::cache) enum Source {
    Kept(BlobFile),
    // A part that lies far ahead of the fill, straight from upstream: passed on, and not kept.
    Passing(Box<BlobBody>),
    // The whole, from upstream and for this reader alone: passed on, verified, and not kept.
    Unkept(Box<Passage>),
    // Follows the attempt that it has read from; counted as one that waits for as long as it does.
    Growing { seat: Seat, attempt: Option<u32>, _waiting: Held },
}

/// Why a body ended early. The connection must be cut then: what was sent so far looks like a whole otherwise.
#[derive(Debug, Error)]
pub enum BrokenStream {
    /// The fill failed.
    #[error("the fill behind this body failed: {0}")]
    Fill(CacheError),
    /// The fill started over: what was sent of the first attempt was wrong, or is no beginning of what comes now.
    #[error("the fill behind this body started over")]
    StartedOver,
    /// Upstream broke off a part that was passed on.
    #[error("the upstream behind this body failed: {0}")]
    Upstream(UpstreamError),
    /// The disk failed.
    #[error("reading the blob: {0}")]
    Disk(#[from] std::io::Error),
}

/// Reads a blob, or a part of it, from front to back.
pub struct BlobReader {
    source: Source,
    at: u64,
    end: Option<u64>,
    healer: Arc<dyn Heal>,
    healed: u32,
}

impl Blob {
    /// Begins to read: all of it, or a range that lies inside it.
    pub fn read(self, range: Option<ByteRange>) -> BlobReader {
        let (at, end) = range.map_or((0, self.size), |range| (range.start, Some(range.end)));
        BlobReader { source: self.source, at, end, healer: self.healer, healed: 0 }
    }

    /// How much of it can be read now, if it is still on its way.
    pub(in crate::cache) fn visible(&self) -> Option<u64> {
        match &self.source {
            Source::Growing { seat, .. } => Some(match seat.now() {
                Progress::Waiting => 0,
                Progress::Streaming(streaming) => streaming.visible,
                Progress::Done(..) | Progress::Unkept(_) | Progress::Failed(_) => u64::MAX,
            }),
            Source::Unkept(_) => Some(0),
            Source::Kept(_) | Source::Passing(_) => None,
        }
    }

    /// Whether its bytes lie in a file.
    pub fn is_on_disk(&self) -> bool {
        !matches!(self.source, Source::Passing(_) | Source::Unkept(_))
    }

    /// Whether it is complete and verified.
    pub fn is_kept(&self) -> bool {
        matches!(self.source, Source::Kept(_))
    }

    /// Waits until it is complete and on disk, without reading it.
    ///
    /// # Errors
    /// The fill failed.
    pub async fn kept(self) -> Result<(), CacheError> {
        match self.source {
            Source::Kept(_) | Source::Passing(_) => Ok(()),
            Source::Unkept(_) => Err(StorageError::NoRoom.into()),
            Source::Growing { mut seat, .. } => match seat.wait_until(|_| false).await {
                Progress::Done(..) => Ok(()),
                Progress::Unkept(_) => Err(StorageError::NoRoom.into()),
                Progress::Failed(error) => Err(error),
                // `wait_until` returns at an end only.
                Progress::Waiting | Progress::Streaming(_) => Err(CacheError::Abandoned),
            },
        }
    }
}

impl BlobReader {
    /// The next bytes; `None` is the end.
    ///
    /// # Errors
    /// There will be no more, although there should.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrokenStream> {
        if let Source::Passing(body) = &mut self.source {
            return body.next().await.map_err(BrokenStream::Upstream);
        }
        loop {
            let extent = match self.next_place(CHUNK).await? {
                Next::Place(extent) => extent,
                Next::End => return Ok(None),
                Next::Passing => return Box::pin(self.next_passed()).await,
            };
            let at = extent.offset;
            match task::blocking(move || extent.read()).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) => self.go_on_without_damage(at, error).await?,
            }
        }
    }

    /// The place of the next bytes, at most `longest`, which are in memory now, and right; `None` is the end.
    ///
    /// # Errors
    /// As [`BlobReader::next`].
    pub async fn next_extent(&mut self, longest: usize) -> Result<Option<Extent>, BrokenStream> {
        loop {
            let extent = match self.next_place(longest).await? {
                Next::Place(extent) => extent,
                Next::End => return Ok(None),
                // What is not in a file is put where it can be sent like what is.
                Next::Passing => match Box::pin(self.next_passed()).await? {
                    Some(bytes) => return Ok(Some(task::blocking(move || Extent::in_memory(&bytes)).await?)),
                    None => return Ok(None),
                },
            };
            match ready(&extent).await {
                Ok(()) => return Ok(Some(extent)),
                Err(error) => self.go_on_without_damage(extent.offset, error).await?,
            }
        }
    }

    /// Goes back to `at`, behind which nothing was sent, and on from there in a file that is not damaged.
    async fn go_on_without_damage(&mut self, at: u64, error: io::Error) -> Result<(), BrokenStream> {
        self.healed += 1;
        if !is_lost(&error) || self.healed > MAX_HEALED {
            return Err(error.into());
        }
        let whole = self.healer.heal().await.map_err(BrokenStream::Fill)?;
        (self.source, self.at) = (whole.source, at);
        Ok(())
    }

    /// The next bytes of a blob that is not kept.
    async fn next_passed(&mut self) -> Result<Option<Bytes>, BrokenStream> {
        let Source::Unkept(passage) = &mut self.source else { return Err(BrokenStream::Fill(CacheError::Abandoned)) };
        while self.end != Some(self.at) {
            let Some((offset, mut bytes)) = passage.next().await.map_err(BrokenStream::Fill)? else {
                // Shorter than was said: that is for the passage to find.
                self.end = Some(self.at);
                continue;
            };
            let seen = self.at.saturating_sub(offset).min(bytes.len() as u64);
            let mut bytes = bytes.split_off(seen as usize);
            bytes.truncate(self.end.map_or(bytes.len(), |end| length(self.at, end, bytes.len())));
            if !bytes.is_empty() {
                self.at += bytes.len() as u64;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Where the next bytes are, as soon as they may be read, and steps over them.
    async fn next_place(&mut self, longest: usize) -> Result<Next, BrokenStream> {
        let at = self.at;
        if self.end == Some(at) {
            return Ok(Next::End);
        }
        let kept = match &mut self.source {
            Source::Kept(blob) => blob.clone(),
            Source::Unkept(_) => return Ok(Next::Passing),
            // Nobody asks for places in a file where there is none.
            Source::Passing(_) => return Err(BrokenStream::Fill(CacheError::Abandoned)),
            Source::Growing { seat, attempt, .. } => match seat.wait_until(|streaming| streaming.visible > at).await {
                Progress::Streaming(streaming) => {
                    follow(attempt, streaming.attempt)?;
                    let until = self.end.map_or(streaming.visible, |end| end.min(streaming.visible));
                    let length = length(at, until, longest);
                    self.at += length as u64;
                    return Ok(Next::Place(streaming.growing.extent(at, length)));
                }
                Progress::Done(blob, of) => {
                    follow(attempt, of)?;
                    blob
                }
                Progress::Unkept(unkept) => {
                    follow(attempt, unkept.attempt)?;
                    self.source = Source::Unkept(Box::new(Passage::new(*unkept, at)));
                    return Ok(Next::Passing);
                }
                Progress::Failed(error) => return Err(BrokenStream::Fill(error)),
                // `wait_until` never returns it.
                Progress::Waiting => return Err(BrokenStream::Fill(CacheError::Abandoned)),
            },
        };
        let end = *self.end.get_or_insert(kept.size());
        self.source = Source::Kept(kept.clone());
        if end == at {
            return Ok(Next::End);
        }
        let length = length(at, end, longest);
        self.at += length as u64;
        Ok(Next::Place(kept.extent(at, length)))
    }
}

/// Where a reader goes on.
enum Next {
    /// Here.
    Place(Extent),
    /// Nowhere.
    End,
    /// Not in a file.
    Passing,
}

/// Waits until bytes are in memory, and right.
pub(in crate::cache) async fn ready(extent: &Extent) -> io::Result<()> {
    if extent.is_ready()? {
        return Ok(());
    }
    let loading = extent.clone();
    task::blocking(move || loading.load()).await
}

/// A reader stays with the attempt that it began with.
fn follow(attempt: &mut Option<u32>, now: u32) -> Result<(), BrokenStream> {
    if *attempt.get_or_insert(now) == now { Ok(()) } else { Err(BrokenStream::StartedOver) }
}

fn length(at: u64, end: u64, longest: usize) -> usize {
    usize::try_from(end - at).map_or(longest, |length| length.min(longest))
}
