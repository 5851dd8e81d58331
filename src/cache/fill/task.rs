//! The fill: one task that brings one blob from upstream to disk, whoever waits for it, and although they may leave.
//!
//! Bytes land in the file by one connection or by several side by side ([`Part`]); the fill follows in order, hashes, and
//! moves the watermark for its readers. The last bytes stay behind the watermark until the digest is right, so that no
//! reader can complete a wrong blob. What has landed when upstream fails for good is kept, and gone on with next time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::flight::{Pilot, Progress, Streaming, Unkept};
use super::part::{Landed, Part, PartError, Source};
use crate::cache::error::CacheError;
use crate::cache::metrics::{Held, Metrics};
use crate::cache::room::Rooms;
use crate::oci::{Digest, Hasher, Repository};
use crate::storage::{BlobFile, Ingest, Link, Room, StorageError, Store};
use crate::task;
use crate::upstream::{BlobBody, Flow, Span, Upstream, UpstreamError};

/// Bytes that stay behind the watermark until the digest is right; a shorter blob is shown only whole.
const HOLDBACK: u64 = 64 << 10;
/// Bytes that one connection is asked for when several fetch side by side. Out of order is at most this, times them.
const PART: u64 = 8 << 20;
/// A blob whose length neither upstream nor a manifest tells is taken up to here; an endless one must not fill the disk.
const MAX_UNANNOUNCED: u64 = 16 << 30;
/// Bytes that are hashed again between two looks at what upstream says.
const RECOVERED: u64 = 64 << 20;
/// Batches that have landed and wait to be hashed; more make the connections wait.
const MAX_BEHIND: usize = 64;

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
    /// In which share of the line.
    pub flow: Flow,
    /// Where it goes.
    pub store: Store,
    /// Who makes room there.
    pub rooms: Rooms,
    /// Counts.
    pub metrics: Metrics,
    /// What readers go on from if the disk fails.
    pub left: Mutex<Option<Unkept>>,
}

impl Fill {
    /// Runs to the end and tells it to everyone.
    pub async fn run(self, pilot: Pilot) {
        let held = Held::new(&self.metrics.fills_in_flight);
        let result = self.fetch(&pilot).await;
        self.metrics.fill_ended(&result);
        drop(held);
        match result {
            Ok((blob, attempt)) => pilot.land(Progress::Done(blob, attempt)),
            Err(CacheError::Storage(error)) if !error.is_mismatch() => {
                tracing::warn!(repository = %self.repository, digest = %self.digest, %error, "a blob is passed on without being kept");
                let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
                pilot.land(Progress::Unkept(Box::new(left.unwrap_or_else(|| self.nothing()))));
            }
            Err(error) => {
                tracing::warn!(repository = %self.repository, digest = %self.digest, %error, "a fill failed");
                pilot.land(Progress::Failed(error));
            }
        }
    }

    /// Not a byte has come.
    fn nothing(&self) -> Unkept {
        let hasher = Hasher::new(self.digest.algorithm());
        Unkept { size: self.announced, attempt: 0, beginning: None, hasher, origin: self.source(Arc::default()) }
    }

    /// Should the disk fail now, readers go on from here.
    fn note(&self, ingest: &Ingest, attempt: u32, size: Option<u64>) {
        let beginning = Some((ingest.growing(), ingest.passed()));
        let unkept = Unkept { size, attempt, beginning, hasher: ingest.hasher(), origin: self.source(Arc::default()) };
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(unkept);
    }

    fn source(&self, is_pieced: Arc<AtomicBool>) -> Source {
        let (upstream, flow) = (self.upstream.clone(), self.flow.clone());
        Source { upstream, flow, repo: self.repository.name.clone(), digest: self.digest, is_pieced }
    }

    async fn fetch(&self, pilot: &Pilot) -> Result<(BlobFile, u32), CacheError> {
        let first = self.attempt(pilot, 0).await;
        // What an earlier attempt left may be wrong, or upstream may have changed meanwhile. Once, from the beginning.
        match first {
            Err((CacheError::Mismatch { .. }, Came::InPieces)) => {
                tracing::warn!(digest = %self.digest, "the pieces of a blob do not fit: it is fetched from the start");
                self.attempt(pilot, 1).await.map(|blob| (blob, 1)).map_err(|(error, _)| error)
            }
            other => other.map(|blob| (blob, 0)).map_err(|(error, _)| error),
        }
    }

    async fn attempt(&self, pilot: &Pilot, attempt: u32) -> Result<BlobFile, (CacheError, Came)> {
        let begun = self.rooms.ingest(&self.digest).await;
        let (ingest, room) = begun.map_err(|error| (error.into(), Came::AtOnce))?;
        let is_pieced = Arc::new(AtomicBool::new(ingest.left() > 0));
        let result = self.fill(pilot, attempt, ingest, room, &is_pieced).await;
        if let Err(CacheError::Mismatch { .. }) = result {
            self.metrics.upstream_mismatch();
        }
        let came = if is_pieced.load(Ordering::Relaxed) { Came::InPieces } else { Came::AtOnce };
        result.map_err(|error| (error, came))
    }

    async fn fill(
        &self,
        pilot: &Pilot,
        attempt: u32,
        ingest: Ingest,
        room: Room,
        is_pieced: &Arc<AtomicBool>,
    ) -> Result<BlobFile, CacheError> {
        let from = ingest.left();
        // Before upstream is asked for what could not be kept. A stranger's word on a length takes no room from others.
        if let Some(size) = self.announced
            && let Err(error) = self.rooms.cover_exactly(&room, size).await
        {
            self.set_aside(ingest, room).await;
            return Err(error.into());
        }
        let follower = Follower { ingest, room: room.clone(), size: None, attempt, pilot };
        // Hashing what is here can take longer than a client waits, and upstream may have none of the rest.
        let answered = OnceLock::new();
        let ask = async {
            let body = self.open(from).await;
            let size = body.as_ref().map(|body| self.agreed_size(body.total).flatten());
            // The only one who sets it.
            let _ = answered.set(size.map_err(|error| matches!(error, UpstreamError::OutOfRange { .. })));
            body
        };
        let (body, (Follower { ingest, .. }, recovered)) = tokio::join!(ask, recover(follower, from, &answered));
        if let Err(error) = recovered {
            ingest.discard();
            return Err(error.into());
        }
        let body = match body {
            Ok(body) => body,
            // The last attempt ended between its last byte and the commit.
            Err(UpstreamError::OutOfRange { .. }) if from > 0 => {
                return self.finish(ingest, room, attempt, Some(from)).await;
            }
            Err(error) => {
                self.set_aside(ingest, room).await;
                return Err(self.upstream_error(error));
            }
        };
        let Some(size) = self.agreed_size(body.total) else {
            ingest.discard();
            return Err(self.mismatch());
        };
        let ingest = match self.announced {
            None => ingest,
            Some(size) => self.set_apart(ingest, size).await?,
        };
        let follower = Follower { ingest, room: room.clone(), size, attempt, pilot };
        follower.show();
        let (Follower { ingest, .. }, poured) = self.pour(follower, body, from, is_pieced).await;
        match poured {
            Ok(()) => self.finish(ingest, room, attempt, size).await,
            Err(PartError::Upstream(error)) => {
                self.set_aside(ingest, room).await;
                Err(self.upstream_error(error))
            }
            Err(PartError::Cancelled) => Err(CacheError::Abandoned),
            Err(PartError::Changed | PartError::TooLong) => {
                ingest.discard();
                Err(self.mismatch())
            }
            Err(PartError::Storage(error)) => {
                self.note(&ingest, attempt, size);
                ingest.discard();
                Err(error.into())
            }
        }
    }

    /// Asks for everything behind `from`, or for a first part of it if several connections are worth their while.
    async fn open(&self, from: u64) -> Result<BlobBody, UpstreamError> {
        let worth_parts = self.announced.is_some_and(|size| size >= from + 2 * PART) && self.upstream.parallel() > 1;
        let span = Span { start: from, end: worth_parts.then_some(from + PART) };
        self.upstream.blob(&self.repository.name, &self.digest, span, &self.flow).await
    }

    /// What a manifest says and what upstream says of the length must be one; `None`: they are not.
    fn agreed_size(&self, total: Option<u64>) -> Option<Option<u64>> {
        match (total, self.announced) {
            (Some(total), Some(announced)) if total != announced => None,
            (total, announced) => Some(total.or(announced)),
        }
    }

    /// Runs the parts, `parallel` at a time, and follows behind what has landed.
    async fn pour<'p>(
        &self,
        mut follower: Follower<'p>,
        body: BlobBody,
        from: u64,
        is_pieced: &Arc<AtomicBool>,
    ) -> (Follower<'p>, Result<(), PartError>) {
        let mut order = Order::new(spans(&body, from, follower.size));
        let (landed, mut landings) = mpsc::channel(MAX_BEHIND);
        let mut landed = Some(landed);
        let (mut parts, mut open, mut next) = (JoinSet::new(), Some(body), 0);
        let outcome = loop {
            while parts.len() < self.upstream.parallel()
                && let (Some(span), Some(landed)) = (order.spans.get(next), &landed)
            {
                let part = self.part(*span, &follower, landed.clone(), is_pieced.clone());
                parts.spawn(part.run(open.take()));
                next += 1;
            }
            if next == order.spans.len() {
                landed = None;
            }
            let step = tokio::select! {
                Some(landing) = landings.recv() => {
                    order.landed(landing);
                    while let Ok(landing) = landings.try_recv() {
                        order.landed(landing);
                    }
                    let (back, followed) = follower.follow(order.frontier()).await;
                    follower = back;
                    followed.map_err(PartError::Storage)
                }
                Some(ended) = parts.join_next() => ended.unwrap_or(Err(PartError::Cancelled)),
                else => break Ok(()),
            };
            if step.is_err() {
                break step;
            }
        };
        // Nothing writes to the file any more when this returns.
        drop(landings);
        while parts.join_next().await.is_some() {}
        (follower, outcome)
    }

    fn part(
        &self,
        span: Span,
        follower: &Follower<'_>,
        landed: mpsc::Sender<Landed>,
        is_pieced: Arc<AtomicBool>,
    ) -> Part {
        let limit = follower.size.unwrap_or(MAX_UNANNOUNCED);
        let room = (self.rooms.clone(), follower.room.clone());
        Part::new(self.source(is_pieced), span, follower.size, limit, follower.ingest.landing(), room, landed)
    }

    async fn set_aside(&self, ingest: Ingest, room: Room) {
        let (store, digest) = (self.store.clone(), self.digest);
        task::blocking(move || store.set_aside(&digest, ingest, room)).await;
    }

    /// A disk that has less than it says is found out before the first byte.
    async fn set_apart(&self, ingest: Ingest, size: u64) -> Result<Ingest, CacheError> {
        let (ingest, done) = task::blocking(move || {
            let done = ingest.reserve(size);
            (ingest, done)
        })
        .await;
        match done {
            Ok(()) => Ok(ingest),
            Err(error) => {
                ingest.discard();
                Err(error.into())
            }
        }
    }

    async fn finish(
        &self,
        ingest: Ingest,
        room: Room,
        attempt: u32,
        size: Option<u64>,
    ) -> Result<BlobFile, CacheError> {
        if size.is_some_and(|size| size != ingest.passed()) {
            ingest.discard();
            return Err(self.mismatch());
        }
        self.note(&ingest, attempt, Some(ingest.passed()));
        let committed = self.on_disk(move |store, digest| store.commit(digest, ingest, room)).await;
        match committed {
            Err(CacheError::Storage(error)) if error.is_mismatch() => Err(self.mismatch()),
            Err(error) => Err(error),
            Ok(blob) => {
                // The bytes are right and here: that the link is missing costs the next client a question.
                if let Err(error) = self.link(blob.size()).await {
                    tracing::error!(digest = %self.digest, %error, "a blob is kept without its link");
                }
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

/// How the bytes of an attempt came: what was wrong in one answer will be wrong again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    AtOnce,
    InPieces,
}

/// Hashes again what an earlier attempt left, up to `from`; shows it as soon as upstream has said that there is more, and
/// gives up when it has said that there is not. The error of the answer says whether the blob ends there.
async fn recover<'p>(
    mut follower: Follower<'p>,
    from: u64,
    answered: &OnceLock<Result<Option<u64>, bool>>,
) -> (Follower<'p>, Result<(), StorageError>) {
    while follower.ingest.passed() < from {
        match answered.get() {
            Some(Err(false)) => break,
            Some(Ok(Some(size))) => follower.size = Some(*size),
            _ => {}
        }
        let step = from.min(follower.ingest.passed() + RECOVERED);
        let passed;
        (follower, passed) = follower.pass(step).await;
        if passed.is_err() {
            return (follower, passed);
        }
        if follower.size.is_some() {
            follower.show();
        }
    }
    (follower, Ok(()))
}

/// Goes behind what has landed: hashes it and shows it to the readers.
struct Follower<'p> {
    ingest: Ingest,
    room: Room,
    size: Option<u64>,
    attempt: u32,
    pilot: &'p Pilot,
}

impl<'p> Follower<'p> {
    async fn follow(self, frontier: u64) -> (Follower<'p>, Result<(), StorageError>) {
        let (back, passed) = self.pass(frontier).await;
        back.show();
        (back, passed)
    }

    async fn pass(self, frontier: u64) -> (Follower<'p>, Result<(), StorageError>) {
        let Follower { mut ingest, room, size, attempt, pilot } = self;
        let (ingest, passed) = task::blocking(move || {
            let passed = ingest.pass(frontier);
            (ingest, passed)
        })
        .await;
        (Follower { ingest, room, size, attempt, pilot }, passed)
    }

    fn show(&self) {
        let passed = self.ingest.passed();
        let visible = match self.size {
            Some(size) => passed.min(size.saturating_sub(HOLDBACK)),
            None => passed.saturating_sub(HOLDBACK),
        };
        let (size, attempt, growing) = (self.size, self.attempt, self.ingest.growing());
        self.pilot.tell(Progress::Streaming(Streaming { size, attempt, visible, growing }));
    }
}

/// How a blob divides: the part that `body` brings, then equal ones up to the end.
fn spans(body: &BlobBody, from: u64, size: Option<u64>) -> Vec<Span> {
    let (Some(size), true) = (size.filter(|size| *size > from + PART), body.is_part && body.ends_before(size)) else {
        return vec![Span { start: from, end: None }];
    };
    let starts = (from..size).step_by(PART as usize);
    starts.map(|start| Span { start, end: Some(size.min(start + PART)) }).collect()
}

/// The parts in their order, and how far each is.
struct Order {
    spans: Vec<Span>,
    landed: HashMap<u64, u64>,
    current: usize,
}

impl Order {
    fn new(spans: Vec<Span>) -> Order {
        Order { spans, landed: HashMap::new(), current: 0 }
    }

    fn landed(&mut self, landed: Landed) {
        self.landed.insert(landed.span.start, landed.upto);
    }

    /// Behind the last byte before which none is missing.
    fn frontier(&mut self) -> u64 {
        loop {
            let span = self.spans[self.current];
            let upto = self.landed.get(&span.start).copied().unwrap_or(span.start);
            if span.end != Some(upto) || self.current + 1 == self.spans.len() {
                return upto;
            }
            self.landed.remove(&span.start);
            self.current += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontier_stops_at_the_first_gap() {
        let span = |start, end| Span { start, end: Some(end) };
        let spans = vec![span(5, 10), span(10, 20), span(20, 25)];
        let mut order = Order::new(spans.clone());
        let mut at = |which: usize, upto| {
            order.landed(Landed { span: spans[which], upto });
            order.frontier()
        };
        assert_eq!(at(2, 25), 5);
        assert_eq!(at(0, 7), 7);
        assert_eq!(at(1, 13), 7);
        assert_eq!(at(0, 10), 13);
        assert_eq!(at(1, 20), 25);
    }
}
