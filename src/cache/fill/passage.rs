//! A blob that cannot be kept: passed on to one reader at its own pace, and verified on the way.
//!
//! What there is of its beginning comes from a file that has no name any more, the rest from upstream by a connection of
//! the reader's own. The last bytes wait in memory until all of them hash to the digest; more than that is never held.

use std::collections::VecDeque;

use bytes::Bytes;

use super::flight::Unkept;
use crate::cache::error::CacheError;
use crate::oci::Hasher;
use crate::storage::{Growing, StorageError};
use crate::task;
use crate::upstream::{BlobBody, Span, UpstreamError};

/// Bytes that are held back until the digest is right.
const HOLDBACK: u64 = 64 << 10;
/// Bytes that are read of the beginning at a time.
const CHUNK: u64 = 256 << 10;
/// How often a connection that broke is taken up again.
const TRIES: u32 = 3;

/// A blob passing through.
pub struct Passage {
    unkept: Unkept,
    // Of the beginning: the next byte to hand out, and where what must be held back begins.
    read: u64,
    open_until: u64,
    // The next byte that upstream has to send.
    at: u64,
    hasher: Option<Hasher>,
    body: Option<(BlobBody, u64)>,
    broken: u32,
    held: VecDeque<Bytes>,
    held_bytes: u64,
}

impl Passage {
    /// Goes on from `unkept`, for a reader who wants nothing before byte `from`.
    pub fn new(unkept: Unkept, from: u64) -> Passage {
        let at = unkept.beginning.as_ref().map_or(0, |(_, passed)| *passed);
        let whole = unkept.size.unwrap_or(at);
        let open_until = at.min(whole.saturating_sub(HOLDBACK));
        let hasher = Some(unkept.hasher.clone());
        let (read, held) = (from.min(open_until), VecDeque::new());
        Passage { unkept, read, open_until, at, hasher, body: None, broken: 0, held, held_bytes: 0 }
    }

    /// Gathers so much that what follows is unlikely to fail: while nothing was sent, an honest error is possible.
    ///
    /// # Errors
    /// Upstream does not give it, or something else.
    pub async fn prime(&mut self) -> Result<(), CacheError> {
        if self.read < self.open_until {
            return Ok(());
        }
        self.gather().await
    }

    /// The next bytes, and where they belong; `None` is the end, and all was right.
    ///
    /// # Errors
    /// There will be no more, although there should.
    pub async fn next(&mut self) -> Result<Option<(u64, Bytes)>, CacheError> {
        if self.read < self.open_until {
            let (at, upto) = (self.read, self.open_until.min(self.read + CHUNK));
            self.read = upto;
            return Ok(Some((at, self.beginning(at, upto).await?)));
        }
        self.gather().await?;
        let offset = self.at - self.held_bytes;
        let Some(mut piece) = self.held.pop_front() else { return Ok(None) };
        if self.hasher.is_some() {
            let free = (self.held_bytes - HOLDBACK).min(piece.len() as u64);
            let rest = piece.split_off(free as usize);
            if !rest.is_empty() {
                self.held.push_front(rest);
            }
        }
        self.held_bytes -= piece.len() as u64;
        Ok(Some((offset, piece)))
    }

    /// Until more is held than must be, or all of it is here and right.
    async fn gather(&mut self) -> Result<(), CacheError> {
        if self.read == self.open_until && self.held_bytes == 0 && self.hasher.is_some() && self.open_until < self.at {
            let rest = self.beginning(self.open_until, self.at).await?;
            self.hold(rest);
            self.open_until = self.at;
            self.read = self.at;
        }
        while self.hasher.is_some() && self.held_bytes <= HOLDBACK {
            match self.fetch().await? {
                Some(piece) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&piece);
                    }
                    self.at += piece.len() as u64;
                    self.hold(piece);
                }
                None => self.verify()?,
            }
        }
        Ok(())
    }

    fn hold(&mut self, piece: Bytes) {
        self.held_bytes += piece.len() as u64;
        self.held.push_back(piece);
    }

    fn verify(&mut self) -> Result<(), CacheError> {
        let digest = self.unkept.origin.digest;
        let is_right = self.hasher.take().is_some_and(|hasher| hasher.finish() == digest);
        if is_right && self.unkept.size.is_none_or(|size| size == self.at) {
            return Ok(());
        }
        self.held.clear();
        Err(CacheError::Mismatch { registry: self.unkept.origin.upstream.name().clone(), digest })
    }

    async fn beginning(&self, from: u64, upto: u64) -> Result<Bytes, CacheError> {
        let Some((growing, _)) = &self.unkept.beginning else { return Err(CacheError::Abandoned) };
        let (growing, digest): (Growing, _) = (growing.clone(), self.unkept.origin.digest);
        let read = task::blocking(move || growing.extent(from, (upto - from) as usize).read()).await;
        Ok(read.map_err(|error| StorageError::unreadable(&digest, error))?)
    }

    /// The next piece from upstream, not empty; `None` is the end.
    async fn fetch(&mut self) -> Result<Option<Bytes>, CacheError> {
        loop {
            if self.unkept.size == Some(self.at) {
                return Ok(None);
            }
            let (mut body, mut surplus) = match self.body.take() {
                Some(open) => open,
                None => match self.open().await {
                    Ok(open) => open,
                    // It ends where the last connection broke.
                    Err(UpstreamError::OutOfRange { .. }) if self.at > 0 => return Ok(None),
                    Err(error) => return Err(self.failed(error)),
                },
            };
            match body.next().await {
                Ok(Some(mut piece)) => {
                    let seen = surplus.min(piece.len() as u64);
                    surplus -= seen;
                    let piece = piece.split_off(seen as usize);
                    self.body = Some((body, surplus));
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) if self.broken < TRIES => {
                    self.broken += 1;
                    tracing::info!(digest = %self.unkept.origin.digest, at = self.at, %error, "a passage broke and is taken up again");
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    async fn open(&self) -> Result<(BlobBody, u64), UpstreamError> {
        let origin = &self.unkept.origin;
        let body = origin
            .upstream
            .blob(&origin.repo, &origin.digest, Span { start: self.at, end: None }, &origin.flow)
            .await?;
        let surplus = self.at.saturating_sub(body.start);
        Ok((body, surplus))
    }

    fn failed(&self, error: UpstreamError) -> CacheError {
        CacheError::from_upstream(self.unkept.origin.upstream.name(), error)
    }
}
