//! Reads everything at rest now and then, hosted content too, and has what is damaged fetched anew where someone else has
//! it. Paced, so that traffic does not feel it; where it was is kept, so that a restart does not begin it again.
//!
//! What is wrong is set aside by the store the moment it is found, whether or not it can be fetched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::blobs::Blobs;
use super::ledger::OnBehalfOf;
use super::manifests::Manifests;
use super::metrics::Metrics;
use crate::clock::Clock;
use crate::oci::{Digest, Repository};
use crate::storage::{Examination, Link, Scrub, ScrubRecord, StorageError, Verdict};
use crate::task;

/// After a start, at least so long nothing is read: others need the disk more then.
const FIRST: Duration = Duration::from_secs(600);
/// How long one round waits for the index, which knows whose a blob is, to be in order.
const INDEX_PATIENCE: Duration = Duration::from_secs(60);
/// Directories of blobs after which it is noted how far it came.
const NOTED: usize = 16;
/// Repositories that are tried for a blob that is to be fetched anew.
const MAX_HOLDERS: usize = 8;

/// How it goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often it begins by itself; none: only when asked to.
    pub every: Option<Duration>,
    /// Bytes read in a second; none: as fast as the disk gives them.
    pub rate: Option<u64>,
}

/// How far it is, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubProgress {
    /// Whether it is at work.
    pub running: bool,
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// Bytes that there are, as far as is known.
    pub of_bytes: u64,
    /// Blobs whose checksums were made anew.
    pub resummed: u64,
    /// Blobs that were damaged, and are in quarantine.
    pub damaged: u64,
    /// Those of them that are here again, fetched anew.
    pub repaired: u64,
    /// Those of them that were pushed here, and that nobody else has.
    pub lost: u64,
    /// Small files that were damaged.
    pub small_files: u64,
    /// Failures of the disk that kept it from looking.
    pub errors: u64,
    /// When a round was last at its end, in seconds since 1970.
    pub completed: Option<u64>,
}

/// Looks after what is at rest. Clones share it.
#[derive(Clone)]
pub struct Scrubber {
    inner: Arc<Inner>,
}

struct Inner {
    scrub: Scrub,
    of_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    manifests: Manifests,
    blobs: Blobs,
    clock: Clock,
    metrics: Metrics,
    pace: Pace,
    progress: Mutex<ScrubProgress>,
    // One that waits is enough: it looks at everything.
    ask: mpsc::Sender<Asked>,
    asked: tokio::sync::Mutex<mpsc::Receiver<Asked>>,
}

/// Someone wants a round now.
#[derive(Clone, Copy, Debug)]
struct Asked {
    repair: bool,
}

impl Scrubber {
    pub(super) fn new(
        store: &crate::storage::Store,
        manifests: Manifests,
        blobs: Blobs,
        clock: Clock,
        metrics: Metrics,
        pace: Pace,
    ) -> Scrubber {
        let (ask, asked) = mpsc::channel(1);
        let (scrub, asked, index) = (store.scrub(), tokio::sync::Mutex::new(asked), store.index().clone());
        let of_bytes = Box::new(move || index.totals().bytes);
        let progress = Mutex::default();
        let inner = Inner { scrub, of_bytes, manifests, blobs, clock, metrics, pace, progress, ask, asked };
        Scrubber { inner: Arc::new(inner) }
    }

    /// How far it is.
    pub fn progress(&self) -> ScrubProgress {
        self.lock().clone()
    }

    /// Has a round begin, from the start; one that is under way goes on instead. Says whether one will.
    pub fn begin(&self, repair: bool) -> bool {
        let mut progress = self.lock();
        let begins = !progress.running && self.inner.ask.try_send(Asked { repair }).is_ok();
        progress.running |= begins;
        begins
    }

    /// Works for as long as it is polled: when it is time, and when it is asked to.
    pub async fn work(self) {
        let mut asked = self.inner.asked.lock().await;
        let mut pause = FIRST;
        loop {
            let next = self.inner.pace.every.map(|every| self.until_due(every).max(pause));
            let due = async {
                match next {
                    Some(next) => self.inner.clock.sleep(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(Asked { repair }) = asked.recv() => self.round(0, repair, self.inner.pace.rate).await,
                () = due => {
                    let record = self.record().await;
                    self.round(record.next, true, self.inner.pace.rate).await;
                }
            }
            pause = Duration::ZERO;
        }
    }

    /// One round, as fast as it goes, for as long as it takes.
    pub async fn once(&self, repair: bool) -> ScrubProgress {
        self.round(0, repair, None).await;
        self.progress()
    }

    fn until_due(&self, every: Duration) -> Duration {
        // A look at one small file; it is in memory.
        let record = self.inner.scrub.record();
        let now = self.inner.clock.unix_seconds();
        let since = record.completed.map(|completed| Duration::from_secs(now.saturating_sub(completed)));
        since.map_or(Duration::ZERO, |since| every.saturating_sub(since))
    }

    async fn record(&self) -> ScrubRecord {
        let scrub = self.inner.scrub.clone();
        task::blocking(move || scrub.record()).await
    }

    async fn round(&self, from: usize, repair: bool, rate: Option<u64>) {
        // What is fetched anew, and what makes way for it, only an index in order tells.
        let scrub = self.inner.scrub.clone();
        task::blocking(move || scrub.settle(INDEX_PATIENCE)).await;
        let of_bytes = (self.inner.of_bytes)();
        let record = self.record().await;
        *self.lock() = ScrubProgress { running: true, of_bytes, completed: record.completed, ..Default::default() };
        tracing::info!(bytes = of_bytes, repair, "everything at rest is being read and checked");
        for directory in from..self.inner.scrub.directories() {
            let scrub = self.inner.scrub.clone();
            let blobs = task::blocking(move || scrub.blobs(directory)).await;
            for (digest, _) in self.counted(blobs).unwrap_or_default() {
                self.look_at(digest, repair, rate).await;
            }
            if directory % NOTED == NOTED - 1 {
                self.keep(ScrubRecord { next: directory + 1, ..record }).await;
            }
        }
        let scrub = self.inner.scrub.clone();
        if let Some(small) = self.counted(task::blocking(move || scrub.small_files()).await) {
            self.lock().small_files = small.set_aside + small.damaged;
        }
        let completed = Some(self.inner.clock.unix_seconds());
        self.keep(ScrubRecord { next: 0, completed }).await;
        let mut progress = self.lock();
        progress.completed = completed;
        progress.running = false;
        let ScrubProgress { blobs, bytes, damaged, repaired, lost, .. } = *progress;
        tracing::info!(blobs, bytes, damaged, repaired, lost, "everything at rest was read and checked");
    }

    async fn look_at(&self, digest: Digest, repair: bool, rate: Option<u64>) {
        let scrub = self.inner.scrub.clone();
        let begun = task::blocking(move || scrub.examine(&digest)).await;
        let Some(Some(mut examination)) = self.counted(begun) else { return };
        loop {
            let (back, read) = task::blocking(move || step(examination)).await;
            examination = back;
            let Some(read) = self.counted(read) else { return };
            if read == 0 {
                break;
            }
            self.lock().bytes += read;
            if let Some(rate) = rate {
                self.inner.clock.sleep(Duration::from_secs_f64(read as f64 / rate.max(1) as f64)).await;
            }
        }
        let Some(verdict) = self.counted(task::blocking(move || examination.finish()).await) else { return };
        self.inner.metrics.scrubbed(verdict.as_str());
        {
            let mut progress = self.lock();
            progress.blobs += 1;
            progress.resummed += u64::from(verdict == Verdict::Summed);
            progress.damaged += u64::from(verdict == Verdict::Damaged);
        }
        if verdict == Verdict::Damaged {
            self.damaged(digest, repair).await;
        }
    }

    async fn damaged(&self, digest: Digest, repair: bool) {
        self.inner.metrics.stored_mismatch();
        let scrub = self.inner.scrub.clone();
        let (cached, hosted) = task::blocking(move || scrub.holders(&digest, MAX_HOLDERS)).await;
        for repository in cached.iter().filter(|_| repair) {
            if self.fetch(repository, &digest).await {
                tracing::info!(%digest, %repository, "what was damaged was fetched anew");
                self.lock().repaired += 1;
                self.inner.metrics.scrubbed("repaired");
                return;
            }
        }
        if let Some(repository) = hosted.first() {
            tracing::error!(%digest, %repository, "what was pushed here is damaged: push it again, or restore it");
            self.lock().lost += 1;
        }
    }

    async fn fetch(&self, repository: &Repository, digest: &Digest) -> bool {
        let (scrub, wanted) = (self.inner.scrub.clone(), (repository.clone(), *digest));
        let fetched = match task::blocking(move || scrub.link(&wanted.0, &wanted.1)).await {
            None => return false,
            Some(Link::Manifest { .. }) => self.inner.manifests.restore(repository, digest, OnBehalfOf::Scrub).await,
            Some(Link::Blob { .. }) => match self.inner.blobs.get(repository, digest).await {
                Ok(blob) => blob.kept().await,
                Err(error) => Err(error),
            },
        };
        fetched.inspect_err(|error| tracing::warn!(%digest, %repository, %error, "not fetched anew yet")).is_ok()
    }

    async fn keep(&self, record: ScrubRecord) {
        let scrub = self.inner.scrub.clone();
        let _counted = self.counted(task::blocking(move || scrub.keep(record)).await);
    }

    /// What could not be looked at does not keep it from the rest.
    fn counted<T>(&self, result: Result<T, StorageError>) -> Option<T> {
        result
            .inspect_err(|error| {
                tracing::error!(%error, "something at rest could not be looked at");
                self.lock().errors += 1;
            })
            .ok()
    }

    fn lock(&self) -> MutexGuard<'_, ScrubProgress> {
        self.inner.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step(mut examination: Examination) -> (Examination, Result<u64, StorageError>) {
    let read = examination.step();
    (examination, read)
}
