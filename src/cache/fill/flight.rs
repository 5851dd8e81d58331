//! The blobs that are on their way: one flight per digest, joined by everyone who asks for it.
//!
//! A flight belongs to its fill task and to no client. Every way in which waiting for it can end has a name, and a
//! sender that vanishes without a word is one of them: an end of stream is an act, never an absence.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::part::Source;
use crate::cache::error::CacheError;
use crate::oci::{Digest, Hasher, Repository};
use crate::storage::{BlobFile, Growing};
use crate::upstream::{Flow, Priority};

/// Flights at one time. They outlive their clients, so clients alone do not bound them.
const MAX_FLIGHTS: usize = 1024;

/// How far a fill is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Upstream has not answered yet.
    Waiting,
    /// Bytes are coming in.
    Streaming(Streaming),
    /// The blob is complete, verified and kept; the number is the attempt that brought it.
    Done(BlobFile, u32),
    /// It cannot be kept here: whoever reads it goes on by himself, from upstream.
    Unkept(Box<Unkept>),
    /// There will be no more bytes.
    Failed(CacheError),
}

/// A fill whose bytes can be read.
#[derive(Clone, Debug)]
pub struct Streaming {
    /// The blob's length in bytes, if upstream told.
    pub size: Option<u64>,
    /// Counts up when the fill starts over: what was read of an earlier attempt need not be the beginning of this one.
    pub attempt: u32,
    /// The watermark: how many bytes may be read. The last ones stay behind it until the digest is right.
    pub visible: u64,
    /// Where to read them.
    pub growing: Growing,
}

/// What there is of a blob that will not be kept.
#[derive(Clone)]
pub struct Unkept {
    /// The blob's length in bytes, if anyone told.
    pub size: Option<u64>,
    /// The attempt that it came in.
    pub attempt: u32,
    /// Its first bytes, in a file without a name, and how many they are.
    pub beginning: Option<(Growing, u64)>,
    /// Has seen those.
    pub hasher: Hasher,
    /// Which blob, and where the rest is.
    pub origin: Source,
}

impl fmt::Debug for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unkept").field("size", &self.size).finish_non_exhaustive()
    }
}

/// A place at a fill: sees its progress.
#[derive(Clone, Debug)]
pub struct Seat {
    progress: watch::Receiver<Progress>,
    flow: Flow,
    // Only counted: each seat that is taken, and the table's own, hold it.
    taken: Arc<()>,
}

impl Seat {
    /// The fill's share of the line.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// How far the fill is now.
    pub fn now(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Waits until `enough` is true of the progress. What has ended is always enough.
    pub async fn wait_until(&mut self, enough: impl Fn(&Streaming) -> bool) -> Progress {
        let arrived = self.progress.wait_for(|progress| match progress {
            Progress::Waiting => false,
            Progress::Streaming(streaming) => enough(streaming),
            Progress::Done(..) | Progress::Unkept(_) | Progress::Failed(_) => true,
        });
        match arrived.await {
            Ok(progress) => progress.clone(),
            Err(_sender_gone) => Progress::Failed(CacheError::Abandoned),
        }
    }
}

/// Moves the progress; held by the fill task. Dropped, it takes the flight off the table.
pub struct Pilot {
    digest: Digest,
    progress: watch::Sender<Progress>,
    table: Table,
}

impl Pilot {
    /// Tells everyone.
    pub fn tell(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Ends the flight: it leaves the table after the blob can be found on disk, and before anyone is told.
    pub fn land(self, progress: Progress) {
        self.leave();
        self.progress.send_replace(progress);
    }

    fn leave(&self) {
        let mut flights = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever came after us under the same digest keeps its place.
        if flights.get(&self.digest).is_some_and(|flight| flight.seat.progress.same_channel(&self.progress.subscribe()))
        {
            flights.remove(&self.digest);
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.leave();
    }
}

struct Flight {
    // Whose request it was: asking upstream through this repository is proof enough that its readers may read it.
    repository: Repository,
    seat: Seat,
}

impl Flight {
    fn report(&self, digest: &Digest) -> FillReport {
        let (bytes, size) = match &*self.seat.progress.borrow() {
            Progress::Streaming(streaming) => (streaming.visible, streaming.size),
            _ => (0, None),
        };
        let readers = Arc::strong_count(&self.seat.taken).saturating_sub(1);
        FillReport { digest: *digest, repository: self.repository.to_string(), bytes, size, readers }
    }
}

/// A fill, for people. Holds a repository's name, so it is shown on the admin address alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FillReport {
    /// What is being fetched.
    pub digest: Digest,
    /// For which repository it was asked first.
    pub repository: String,
    /// Bytes that can be read already.
    pub bytes: u64,
    /// Bytes in all, if upstream told.
    pub size: Option<u64>,
    /// Who waits for it or reads it now; the server itself, where it fetches ahead of a client. None: it goes on for
    /// those who come later.
    pub readers: usize,
}

type Table = Arc<Mutex<HashMap<Digest, Flight>>>;

/// The flights of this process; as many as there are fills.
#[derive(Clone, Default)]
pub struct Flights {
    table: Table,
}

/// What asking for a flight comes to.
pub enum Boarding {
    /// Nobody fetches it yet: fly.
    Lead(Pilot, Seat),
    /// It is being fetched through the same repository.
    Join(Seat),
    /// It is being fetched through another repository; whether ours may have it is not known.
    Elsewhere(Seat),
}

impl Flights {
    /// The flight of `digest` through `repository`, if there is one.
    pub fn running(&self, digest: &Digest, repository: &Repository) -> Option<Seat> {
        let flights = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let flight = flights.get(digest).filter(|flight| flight.repository == *repository)?;
        Some(flight.seat.clone())
    }

    /// Whether a digest is on its way through whichever repository.
    pub fn is_flying(&self, digest: &Digest) -> bool {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    /// How far each of them is, as it is at this moment, in the order of their digests.
    pub fn report(&self) -> Vec<FillReport> {
        let flights = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reports: Vec<FillReport> = flights.iter().map(|(digest, flight)| flight.report(digest)).collect();
        drop(flights);
        reports.sort_unstable_by_key(|report| report.digest);
        reports
    }

    /// Joins the flight of `digest`, or begins it with a share of the line that `flow` makes. A client's priority is
    /// the flight's from then on.
    ///
    /// # Errors
    /// There are too many already.
    pub fn board(
        &self,
        digest: &Digest,
        repository: &Repository,
        priority: Priority,
        flow: impl FnOnce(Priority) -> Flow,
    ) -> Result<Boarding, CacheError> {
        let mut flights = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(digest) {
            let seat = flight.seat.clone();
            if priority == Priority::Foreground {
                seat.flow.raise();
            }
            let ours = flight.repository == *repository;
            return Ok(if ours { Boarding::Join(seat) } else { Boarding::Elsewhere(seat) });
        }
        if flights.len() >= MAX_FLIGHTS {
            return Err(CacheError::Busy);
        }
        let (progress, receiver) = watch::channel(Progress::Waiting);
        let seat = Seat { progress: receiver, flow: flow(priority), taken: Arc::default() };
        flights.insert(*digest, Flight { repository: repository.clone(), seat: seat.clone() });
        Ok(Boarding::Lead(Pilot { digest: *digest, progress, table: self.table.clone() }, seat))
    }
}
