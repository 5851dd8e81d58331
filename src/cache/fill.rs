//! The fill: one task that brings one blob from upstream to disk, whoever waits for it, and although they may leave.
//!
//! Bytes go one way: socket → file and hash → watermark → readers. A connection that breaks is taken up again where it
//! broke, and readers do not notice. The last bytes stay behind the watermark until the digest is right, so that no
//! reader can complete a wrong blob. Memory is one batch.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::sleep;

use super::error::CacheError;
use super::flight::{Pilot, Progress, Streaming};
use super::metrics::{Held, Metrics};
use crate::oci::{Digest, Repository};
use crate::storage::{BlobFile, Ingest, Link, StorageError, Store};
use crate::task;
use crate::upstream::{BlobBody, Upstream, UpstreamError};

/// Bytes that stay behind the watermark until the digest is right; a shorter blob is shown only whole.
const HOLDBACK: u64 = 64 << 10;
/// Most bytes that are held before they are written.
const BATCH: usize = 256 << 10;
/// A blob whose length neither upstream nor a manifest tells is taken up to here; an endless one must not fill the disk.
const MAX_UNANNOUNCED: u64 = 16 << 30;
/// Pauses before a broken connection is taken up again; bytes that arrive start the list anew.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(4)];

/// What one fill is about.
pub struct Fill {
    /// Whose blob, and by which right.
    pub repository: Repository,
    /// Which.
    pub digest: Digest,
    /// How long a manifest of that repository says it is.
    pub announced: Option<u64>,
    /// Where it comes from.
    pub upstream: Upstream,
    /// Where it goes.
    pub store: Store,
    /// Counts.
    pub metrics: Metrics,
}

enum Broken {
    Upstream(UpstreamError),
    Storage(StorageError),
}

impl Fill {
    /// Runs to the end and tells it to everyone.
    pub async fn run(self, pilot: Pilot) {
        let held = Held::new(&self.metrics.fills_in_flight);
        let result = self.fetch(&pilot).await;
        self.metrics.fill_ended(&result);
        if let Err(CacheError::Mismatch { .. }) = result {
            self.metrics.upstream_mismatch();
        }
        drop(held);
        match result {
            Ok(blob) => pilot.land(Progress::Done(blob)),
            Err(error) => {
                tracing::warn!(repository = %self.repository, digest = %self.digest, %error, "a fill failed");
                pilot.land(Progress::Failed(error));
            }
        }
    }

    async fn fetch(&self, pilot: &Pilot) -> Result<BlobFile, CacheError> {
        // Another flight may have landed between the look at the disk and the boarding of this one.
        if let Some(blob) = self.on_disk(|store, digest| store.blob(digest)).await? {
            self.upstream.head_blob(&self.repository.name, &self.digest).await.map_err(|e| self.upstream_error(e))?;
            self.link(blob.size()).await?;
            return Ok(blob);
        }
        let body =
            self.upstream.blob(&self.repository.name, &self.digest, 0).await.map_err(|e| self.upstream_error(e))?;
        let size = self.agreed_size(body.total)?;
        let mut incoming = Incoming { body, surplus: 0 };
        let mut ingest = self.on_disk(move |store, digest| store.ingest(digest, size)).await?;
        let show = |ingest: &Ingest| {
            let visible = match size {
                Some(size) => ingest.written().min(size.saturating_sub(HOLDBACK)),
                None => ingest.written().saturating_sub(HOLDBACK),
            };
            pilot.tell(Progress::Streaming(Streaming { size, visible, growing: ingest.growing() }));
        };
        show(&ingest);

        let mut pauses = PAUSES.iter();
        loop {
            let before = ingest.written();
            let (back, outcome) = self.pour(&mut incoming, ingest, size, &show).await;
            ingest = back;
            let error = match outcome {
                Ok(()) => break,
                // It broke behind its last byte.
                Err(Broken::Upstream(_)) if size == Some(ingest.written()) => break,
                Err(Broken::Storage(error)) => return Err(error.into()),
                Err(Broken::Upstream(error)) => error,
            };
            if ingest.written() > before {
                pauses = PAUSES.iter();
            }
            incoming = self.take_up(&mut pauses, error, ingest.written(), size).await?;
        }
        self.finish(ingest, size).await
    }

    /// What a manifest says and what upstream says of the length must be one.
    fn agreed_size(&self, total: Option<u64>) -> Result<Option<u64>, CacheError> {
        match (total, self.announced) {
            (Some(total), Some(announced)) if total != announced => Err(self.mismatch()),
            (total, announced) => Ok(total.or(announced)),
        }
    }

    /// Moves bytes until the body ends or something breaks.
    async fn pour(
        &self,
        incoming: &mut Incoming,
        mut ingest: Ingest,
        size: Option<u64>,
        show: impl Fn(&Ingest),
    ) -> (Ingest, Result<(), Broken>) {
        let limit = size.unwrap_or(MAX_UNANNOUNCED);
        loop {
            let batch = match incoming.next_batch().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return (ingest, Ok(())),
                Err(error) => return (ingest, Err(Broken::Upstream(error))),
            };
            let arrived = ingest.written() + batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if arrived > limit {
                let error = StorageError::SizeMismatch { expected: limit, actual: arrived };
                return (ingest, Err(Broken::Storage(error)));
            }
            let (back, written) = task::blocking(move || {
                let written = batch.iter().try_for_each(|piece| ingest.append(piece));
                (ingest, written)
            })
            .await;
            ingest = back;
            if let Err(error) = written {
                return (ingest, Err(Broken::Storage(error)));
            }
            show(&ingest);
        }
    }

    /// Opens the body anew behind the bytes that are here already.
    async fn take_up(
        &self,
        pauses: &mut std::slice::Iter<'_, Duration>,
        mut error: UpstreamError,
        from: u64,
        size: Option<u64>,
    ) -> Result<Incoming, CacheError> {
        for pause in pauses {
            tracing::info!(digest = %self.digest, from, %error, "a fill broke and is taken up again");
            sleep(*pause).await;
            match self.reopen(from, size).await {
                Ok(Some(incoming)) => return Ok(incoming),
                Ok(None) => return Err(self.mismatch()),
                Err(again) => error = again,
            }
        }
        Err(self.upstream_error(error))
    }

    /// `None`: upstream's blob has another length now.
    async fn reopen(&self, from: u64, size: Option<u64>) -> Result<Option<Incoming>, UpstreamError> {
        let body = self.upstream.blob(&self.repository.name, &self.digest, from).await?;
        if body.total.zip(size).is_some_and(|(total, size)| total != size) {
            return Ok(None);
        }
        // Upstream may not know ranges and begin at 0.
        let surplus = from.saturating_sub(body.start);
        Ok(Some(Incoming { body, surplus }))
    }

    async fn finish(&self, ingest: Ingest, size: Option<u64>) -> Result<BlobFile, CacheError> {
        if size.is_some_and(|size| size != ingest.written()) {
            return Err(self.mismatch());
        }
        let committed = self.on_disk(move |store, digest| store.commit(digest, ingest)).await;
        match committed {
            Err(CacheError::Storage(error)) if error.is_mismatch() => Err(self.mismatch()),
            Err(error) => Err(error),
            Ok(blob) => {
                self.link(blob.size()).await?;
                Ok(blob)
            }
        }
    }

    async fn link(&self, size: u64) -> Result<(), CacheError> {
        let repository = self.repository.clone();
        self.on_disk(move |store, digest| store.add_link(&repository, digest, Link::Blob { size })).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &Digest) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, CacheError> {
        let (store, digest) = (self.store.clone(), self.digest);
        Ok(task::blocking(move || work(&store, &digest)).await?)
    }

    fn mismatch(&self) -> CacheError {
        CacheError::Mismatch { registry: self.repository.registry.clone(), digest: self.digest }
    }

    fn upstream_error(&self, error: UpstreamError) -> CacheError {
        CacheError::from_upstream(&self.repository.registry, error)
    }
}

/// A body, and how many bytes of it are here already and are read past.
struct Incoming {
    body: BlobBody,
    surplus: u64,
}

impl Incoming {
    /// What has arrived: one write for many small pieces. `None` is the end.
    async fn next_batch(&mut self) -> Result<Option<Vec<Bytes>>, UpstreamError> {
        let Some(first) = self.body.next().await? else { return Ok(None) };
        let mut length = first.len();
        let mut batch = vec![self.unseen(first)];
        while length < BATCH {
            match self.body.next().now_or_never() {
                Some(Ok(Some(piece))) => {
                    length += piece.len();
                    batch.push(self.unseen(piece));
                }
                // The end, or an error, comes again at the next call, after this batch was written.
                Some(Ok(None) | Err(_)) | None => break,
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
