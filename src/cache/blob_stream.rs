//! What a client gets of a blob: a finished file or one that still grows, read by position at the client's own pace.
//!
//! A reader holds one chunk. It never decides when a blob is complete: a body ends early only by an error.

use bytes::Bytes;
use thiserror::Error;

use super::error::CacheError;
use super::flight::{Progress, Seat};
use super::metrics::Held;
use super::outcome::Outcome;
use crate::oci::ByteRange;
use crate::storage::BlobFile;
use crate::task;

/// Bytes read at a time.
const CHUNK: u64 = 256 << 10;

/// A blob that can be read.
pub struct Blob {
    /// Length in bytes; unknown only while it is fetched from an upstream that does not tell.
    pub size: Option<u64>,
    /// Where it comes from.
    pub outcome: Outcome,
    pub(super) source: Source,
}

pub(super) enum Source {
    Kept(BlobFile),
    // Counted as one that waits for as long as it follows the fill.
    Growing { seat: Seat, _waiting: Held },
}

/// Why a body ended early. The connection must be cut then: what was sent so far looks like a whole otherwise.
#[derive(Debug, Error)]
pub enum BrokenStream {
    /// The fill failed.
    #[error("the fill behind this body failed: {0}")]
    Fill(CacheError),
    /// The disk failed.
    #[error("reading the blob: {0}")]
    Disk(#[from] std::io::Error),
}

/// Reads a blob, or a part of it, from front to back.
pub struct BlobReader {
    source: Source,
    at: u64,
    end: Option<u64>,
}

impl Blob {
    /// Begins to read: all of it, or a range that lies inside it.
    pub fn read(self, range: Option<ByteRange>) -> BlobReader {
        match range {
            Some(range) => BlobReader { source: self.source, at: range.start, end: Some(range.end) },
            None => BlobReader { source: self.source, at: 0, end: self.size },
        }
    }
}

impl BlobReader {
    /// The next bytes; `None` is the end.
    ///
    /// # Errors
    /// There will be no more, although there should.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrokenStream> {
        if self.end == Some(self.at) {
            return Ok(None);
        }
        let kept = match &mut self.source {
            Source::Kept(blob) => blob.clone(),
            Source::Growing { seat, .. } => {
                let at = self.at;
                match seat.wait_until(|streaming| streaming.visible > at).await {
                    Progress::Streaming(streaming) => {
                        let until = self.end.map_or(streaming.visible, |end| end.min(streaming.visible));
                        let bytes = read(until - at, move |length| streaming.growing.read_at(at, length)).await?;
                        self.at += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                    Progress::Done(blob) => blob,
                    Progress::Failed(error) => return Err(BrokenStream::Fill(error)),
                    // `wait_until` never returns it.
                    Progress::Waiting => return Err(BrokenStream::Fill(CacheError::Abandoned)),
                }
            }
        };
        let end = *self.end.get_or_insert(kept.size());
        self.source = Source::Kept(kept.clone());
        if end == self.at {
            return Ok(None);
        }
        let at = self.at;
        let bytes = read(end - at, move |length| kept.read_at(at, length)).await?;
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

async fn read(
    available: u64,
    at: impl FnOnce(usize) -> std::io::Result<Bytes> + Send + 'static,
) -> std::io::Result<Bytes> {
    let length = available.min(CHUNK) as usize;
    task::blocking(move || at(length)).await
}
