//! Blobs by digest: on disk, on their way in, or fetched now. The decision that a request for a blob comes to.
//!
//! A blob is served to those who ask in a repository that upstream has served it in, and to nobody else. From the moment
//! a flight is boarded, whoever leads it and whoever joins it are alike.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;

use super::error::CacheError;
use super::fill::{Blob, Boarding, Fill, FillReport, Flights, Heal, Passage, Pilot, Progress, Seat, Source, ready};
use super::manifests::Manifests;
use super::metrics::{Held, Metrics};
use super::origin::Origins;
use super::outcome::Outcome;
use super::room::Rooms;
use super::single_flight::SingleFlight;
use crate::oci::{Digest, RangeHeader, Repository};
use crate::storage::{BlobFile, Link, Store, Verdict, is_lost};
use crate::task;
use crate::upstream::{Priority, Span, Upstream, UpstreamError};

/// How far ahead of the watermark a range may begin and still wait for it: about what several connections have in flight.
const NEAR: u64 = 32 << 20;
/// Bytes that are looked at before an answer begins: while they are wrong, an honest error is possible.
const BEGINNING: u64 = 64 << 10;

/// The blobs of all cached repositories. Clones share them.
#[derive(Clone)]
pub struct Blobs {
    store: Store,
    origins: Origins,
    manifests: Manifests,
    metrics: Metrics,
    rooms: Rooms,
    first_byte_timeout: Duration,
    flights: Flights,
    // Questions whether a repository may have a blob that is here already.
    rights: Arc<SingleFlight<(Repository, Digest), ()>>,
}

enum Found {
    Readable(BlobFile),
    // Another repository's; whether this one may have it is upstream's to say.
    Unlinked(BlobFile),
    Nothing,
}

impl Blobs {
    /// Blobs over `store`, fetched from `origins`. A client whose blob is not here waits at most `first_byte_timeout`.
    pub fn new(
        store: Store,
        origins: Origins,
        manifests: Manifests,
        metrics: Metrics,
        rooms: Rooms,
        first_byte_timeout: Duration,
    ) -> Blobs {
        let (flights, rights) = (Flights::default(), Arc::new(SingleFlight::new("right")));
        Blobs { store, origins, manifests, metrics, rooms, first_byte_timeout, flights, rights }
    }

    /// A blob, complete or while it is fetched, for a client.
    ///
    /// # Errors
    /// It does not exist, or is not here and cannot be fetched now.
    pub async fn get(&self, repository: &Repository, digest: &Digest) -> Result<Blob, CacheError> {
        let blob = self.take(Priority::Foreground, repository, digest).await?;
        self.sound(repository, digest, blob, 0).await
    }

    /// The blob, unless it begins with damage at `from`; the same fetched anew then.
    async fn sound(&self, repository: &Repository, digest: &Digest, blob: Blob, from: u64) -> Result<Blob, CacheError> {
        let Source::Kept(file) = &blob.source else { return Ok(blob) };
        let beginning = file.extent(from, BEGINNING.min(file.size().saturating_sub(from)) as usize);
        match ready(&beginning).await {
            Err(error) if is_lost(&error) => Box::pin(self.heal(repository, digest)).await,
            // Whatever else is wrong with it, the reader will meet.
            _ => Ok(blob),
        }
    }

    /// A blob whose file does not give back what was stored: looked at as a whole, set aside if it is wrong, and fetched.
    async fn heal(&self, repository: &Repository, digest: &Digest) -> Result<Blob, CacheError> {
        let (store, wanted) = (self.store.clone(), *digest);
        if task::blocking(move || store.examine(&wanted)).await? == Verdict::Damaged {
            self.metrics.stored_mismatch();
        }
        self.take(Priority::Foreground, repository, digest).await
    }

    /// Brings a blob here that no client has asked for yet.
    ///
    /// # Errors
    /// As [`Blobs::get`], or the fill failed.
    pub async fn bring(&self, repository: &Repository, digest: &Digest) -> Result<(), CacheError> {
        self.take(Priority::Background, repository, digest).await?.kept().await
    }

    async fn take(&self, whom: Priority, repository: &Repository, digest: &Digest) -> Result<Blob, CacheError> {
        match self.find(repository, digest).await? {
            Found::Readable(blob) => Ok(self.kept(blob, repository, digest, Outcome::Hit)),
            Found::Unlinked(blob) => Box::pin(self.share(blob, repository, digest)).await,
            Found::Nothing => Box::pin(self.fly(whom, repository, digest)).await,
        }
    }

    /// What is here for another repository, once it is known that this one may have it.
    async fn share(&self, blob: BlobFile, repository: &Repository, digest: &Digest) -> Result<Blob, CacheError> {
        match self.flights.running(digest, repository) {
            // Our own fill is just between its commit and its link.
            Some(seat) => self.follow(seat, repository, digest, Outcome::Joined).await,
            None => {
                self.ask_right(repository, digest, Some(blob.size())).await?;
                Ok(self.kept(blob, repository, digest, Outcome::Revalidated))
            }
        }
    }

    /// What is not here: fetched now, or on its way already.
    async fn fly(&self, whom: Priority, repository: &Repository, digest: &Digest) -> Result<Blob, CacheError> {
        let boarding = match self.board(whom, repository, digest)? {
            Boarding::Elsewhere(seat) => {
                self.ask_right(repository, digest, None).await?;
                self.link_when_here(seat.clone(), repository, digest);
                match self.follow(seat, repository, digest, Outcome::Joined).await {
                    Ok(blob) => return Ok(blob),
                    // The other repository's trouble need not be ours.
                    Err(_) => self.board(whom, repository, digest)?,
                }
            }
            boarding => boarding,
        };
        match boarding {
            Boarding::Lead(pilot, seat) => {
                self.lead(repository, digest, pilot, &seat)?;
                self.follow(seat, repository, digest, Outcome::Miss).await
            }
            Boarding::Join(seat) | Boarding::Elsewhere(seat) => {
                self.follow(seat, repository, digest, Outcome::Joined).await
            }
        }
    }

    /// How far each fill is.
    pub fn fills(&self) -> Vec<FillReport> {
        self.flights.report()
    }

    /// Whether a blob is on its way in.
    pub fn is_flying(&self, digest: &Digest) -> bool {
        self.flights.is_flying(digest)
    }

    /// Whether a blob is here whole.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn is_here(&self, repository: &Repository, digest: &Digest) -> Result<bool, CacheError> {
        Ok(matches!(self.find(repository, digest).await?, Found::Readable(_)))
    }

    /// Whether a blob can be had although upstream cannot: it is here, or so many of its bytes have come that its fill is
    /// under way. One that waits for its first byte waits in vain.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn is_here_or_coming(&self, repository: &Repository, digest: &Digest) -> Result<bool, CacheError> {
        let seat = self.flights.running(digest, repository);
        let is_coming = seat.is_some_and(|seat| matches!(seat.now(), Progress::Streaming(_)));
        Ok(is_coming || self.is_here(repository, digest).await?)
    }

    /// How long a blob is, without fetching it.
    ///
    /// # Errors
    /// It does not exist, or is not here and upstream cannot be asked now.
    pub async fn size(&self, repository: &Repository, digest: &Digest) -> Result<(Option<u64>, Outcome), CacheError> {
        match self.find(repository, digest).await? {
            Found::Readable(blob) => Ok((Some(blob.size()), Outcome::Hit)),
            Found::Unlinked(blob) => {
                self.ask_right(repository, digest, Some(blob.size())).await?;
                Ok((Some(blob.size()), Outcome::Revalidated))
            }
            Found::Nothing => {
                let size = self.origins.of(repository)?.head_blob(&repository.name, digest).await;
                let size = size.map_err(|error| CacheError::from_upstream(&repository.registry, error))?;
                Ok((size.or_else(|| self.manifests.announced(repository, digest)), Outcome::Bypass))
            }
        }
    }

    /// A part of a blob, complete or while it is fetched. One that lies far ahead of the fill comes straight from upstream:
    /// whoever pulls lazily must not wait for the gigabytes before it. The whole goes on being fetched meanwhile.
    ///
    /// # Errors
    /// As [`Blobs::get`].
    pub async fn part(
        &self,
        repository: &Repository,
        digest: &Digest,
        wanted: RangeHeader,
    ) -> Result<Blob, CacheError> {
        let blob = self.take(Priority::Foreground, repository, digest).await?;
        let (Some(size), Some(visible)) = (blob.size, blob.visible()) else {
            let from = blob.size.and_then(|size| wanted.of(size)).map_or(0, |range| range.start);
            return self.sound(repository, digest, blob, from).await;
        };
        let Some(range) = wanted.of(size).filter(|range| range.start > visible.saturating_add(NEAR)) else {
            return Ok(blob);
        };
        let upstream = self.origins.of(repository)?;
        let span = Span { start: range.start, end: Some(range.end) };
        let flow = upstream.flow(Priority::Foreground);
        match timeout(self.first_byte_timeout, upstream.blob(&repository.name, digest, span, &flow)).await {
            Ok(Ok(body)) if body.is_part => {
                let source = Source::Passing(Box::new(body));
                Ok(Blob { size: Some(size), outcome: Outcome::Bypass, source, healer: self.healer(repository, digest) })
            }
            // Without ranges, without a free connection or without luck, the fill gets there, too.
            _ => Ok(blob),
        }
    }

    fn board(&self, whom: Priority, repository: &Repository, digest: &Digest) -> Result<Boarding, CacheError> {
        let upstream = self.origins.of(repository)?;
        self.flights.board(digest, repository, whom, |priority| upstream.flow(priority))
    }

    fn kept(&self, blob: BlobFile, repository: &Repository, digest: &Digest, outcome: Outcome) -> Blob {
        self.store.used(digest);
        let (size, source) = (Some(blob.size()), Source::Kept(blob));
        Blob { size, outcome, source, healer: self.healer(repository, digest) }
    }

    fn healer(&self, repository: &Repository, digest: &Digest) -> Arc<dyn Heal> {
        Arc::new(Healer { blobs: self.clone(), repository: repository.clone(), digest: *digest })
    }

    async fn find(&self, repository: &Repository, digest: &Digest) -> Result<Found, CacheError> {
        // The hot path: no other thread, and no disk.
        if let Some(blob) = self.store.held(repository, digest) {
            return Ok(Found::Readable(blob));
        }
        let (store, repository, digest) = (self.store.clone(), repository.clone(), *digest);
        task::blocking(move || {
            let opening = store.opening();
            let Some(blob) = store.blob(&digest)? else { return Ok(Found::Nothing) };
            match store.link(&repository, &digest)? {
                // Links are written by whoever has seen the whole: a shorter file has lost something since.
                Some(link) if link.size() != blob.size() => {
                    store.quarantine(&digest, "its length is not what its link says")?;
                    Ok(Found::Nothing)
                }
                Some(_) => {
                    store.hold(opening, repository, digest, blob.clone());
                    Ok(Found::Readable(blob))
                }
                None => Ok(Found::Unlinked(blob)),
            }
        })
        .await
    }

    /// Asks upstream whether `repository`'s readers may have a blob, and remembers that they may if it is here, of `size`.
    async fn ask_right(&self, repository: &Repository, digest: &Digest, size: Option<u64>) -> Result<(), CacheError> {
        let upstream = self.origins.of(repository)?.clone();
        let work = || {
            let (store, repository, digest) = (self.store.clone(), repository.clone(), *digest);
            async move {
                let answer = may_read(&upstream, &repository, &digest).await;
                answer.map_err(|error| CacheError::from_upstream(&repository.registry, error))?;
                let Some(size) = size else { return Ok(()) };
                let link = Link::Blob { size };
                // Without it, the next client's right is asked for again.
                if let Err(error) = task::blocking(move || store.add_link(&repository, &digest, link)).await {
                    tracing::error!(%digest, %error, "a blob is served without its link being kept");
                }
                Ok(())
            }
        };
        let answer = self.rights.join((repository.clone(), *digest), work);
        timeout(self.first_byte_timeout, answer).await.map_or(Err(CacheError::Late), |(answer, _role)| answer)
    }

    /// A fill links the repository that began it. Others who may have the blob, too, must find it when upstream is gone.
    fn link_when_here(&self, mut seat: Seat, repository: &Repository, digest: &Digest) {
        let (store, repository, digest) = (self.store.clone(), repository.clone(), *digest);
        task::spawn("link", async move {
            let Progress::Done(blob, _) = seat.wait_until(|_| false).await else { return };
            let link = Link::Blob { size: blob.size() };
            if let Err(error) = task::blocking(move || store.add_link(&repository, &digest, link)).await {
                tracing::error!(%digest, %error, "a blob is kept without a link");
            }
        });
    }

    fn lead(&self, repository: &Repository, digest: &Digest, pilot: Pilot, seat: &Seat) -> Result<(), CacheError> {
        let fill = Fill {
            repository: repository.clone(),
            digest: *digest,
            announced: self.manifests.announced(repository, digest),
            upstream: self.origins.of(repository)?.clone(),
            flow: seat.flow().clone(),
            store: self.store.clone(),
            rooms: self.rooms.clone(),
            metrics: self.metrics.clone(),
            left: Mutex::default(),
        };
        let (blobs, repository, digest) = (self.clone(), repository.clone(), *digest);
        task::spawn("fill", async move {
            // Another flight may have landed between the look at the disk and the boarding of this one.
            match blobs.find(&repository, &digest).await {
                Ok(Found::Readable(blob)) => pilot.land(Progress::Done(blob, 0)),
                Ok(Found::Unlinked(blob)) => match blobs.ask_right(&repository, &digest, Some(blob.size())).await {
                    Ok(()) => pilot.land(Progress::Done(blob, 0)),
                    Err(error) => pilot.land(Progress::Failed(error)),
                },
                Ok(Found::Nothing) => Box::pin(fill.run(pilot)).await,
                Err(error) => pilot.land(Progress::Failed(error)),
            }
        });
        Ok(())
    }

    /// Waits for a fill's first bytes: until then an honest error is possible, after that only a cut connection.
    async fn follow(
        &self,
        mut seat: Seat,
        repository: &Repository,
        digest: &Digest,
        outcome: Outcome,
    ) -> Result<Blob, CacheError> {
        let first = timeout(self.first_byte_timeout, seat.wait_until(|streaming| streaming.visible > 0)).await;
        let progress = first.unwrap_or_else(|_elapsed| seat.now());
        let size = match progress {
            Progress::Done(blob, _) => return Ok(self.kept(blob, repository, digest, outcome)),
            Progress::Streaming(streaming) => streaming.size,
            Progress::Unkept(unkept) => {
                let (size, mut passage) = (unkept.size, Passage::new(*unkept, 0));
                timeout(self.first_byte_timeout, passage.prime()).await.unwrap_or(Err(CacheError::Late))?;
                let (source, healer) = (Source::Unkept(Box::new(passage)), self.healer(repository, digest));
                return Ok(Blob { size, outcome: Outcome::Bypass, source, healer });
            }
            Progress::Failed(error) => return Err(error),
            // A healthy upstream whose connections are all taken: it is our turn soon, and a 404 would send the client
            // away from what the others are getting.
            Progress::Waiting if self.origins.of(repository)?.is_crowded() => {
                Some(self.manifests.announced(repository, digest).ok_or(CacheError::Late)?)
            }
            Progress::Waiting => return Err(CacheError::Late),
        };
        let source = Source::Growing { seat, attempt: None, _waiting: Held::new(&self.metrics.fill_waiters) };
        Ok(Blob { size, outcome, source, healer: self.healer(repository, digest) })
    }
}

/// Heals one blob for its reader.
struct Healer {
    blobs: Blobs,
    repository: Repository,
    digest: Digest,
}

impl Heal for Healer {
    fn heal(&self) -> Pin<Box<dyn Future<Output = Result<Blob, CacheError>> + Send + '_>> {
        Box::pin(self.blobs.heal(&self.repository, &self.digest))
    }
}

/// A HEAD, or where HEAD says little about what a GET would bring (Docker Hub has refused it for hours, and some signed
/// links are for GET alone), the first byte.
async fn may_read(upstream: &Upstream, repository: &Repository, digest: &Digest) -> Result<(), UpstreamError> {
    match upstream.head_blob(&repository.name, digest).await {
        Err(error) if error.is_doubtful() => {
            let first_byte = Span { start: 0, end: Some(1) };
            let flow = upstream.flow(Priority::Foreground);
            upstream.blob(&repository.name, digest, first_byte, &flow).await.map(|_body| ())
        }
        answer => answer.map(|_size| ()),
    }
}
