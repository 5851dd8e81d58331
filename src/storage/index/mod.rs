//! The index: what is known about the files without opening them. Files are the truth; every row here can be rebuilt from
//! them, and is, in the background, whenever the database cannot be trusted.
//!
//! It answers: sizes and totals, recency, who holds what and the reverse, tags, the catalogue, when a tag was last
//! confirmed. It never decides whether content exists (only opening its file does), never fails its callers, never keeps
//! them waiting for the disk to write, and never lets a panic of sled's out.
//!
//! While it opens, rebuilds or is degraded ([`Index::state`]), a question is answered from what there is, which may be
//! nothing, or too much. Where that matters, ask the files. Questions may read from disk: do not ask them on a thread of
//! the runtime that serves hits.
//!
//! From the bottom up: `key` and `record` are the rows' bytes; `rows` is sled; `apply` says what a change does to rows;
//! `epoch`, `place`, `open` and `opening` find or make a database to trust; `comparison` brings it in line with the files;
//! `owner` is the thread that does all of it, fed by `queue`.

mod apply;
mod change;
mod comparison;
mod epoch;
mod fault;
mod key;
mod ledger;
mod metrics;
mod open;
mod opening;
mod owner;
mod place;
mod query;
mod queue;
mod recency;
mod record;
mod rows;
mod state;
mod sync_mode;
mod table;
mod thread;
mod verify;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use tracing::warn;

use crate::clock::Clock;
use crate::oci::{Digest, RepoName, Repository, Tag};
use crate::storage::home::Home;
use crate::storage::link::Link;

pub use change::{Change, Truth};
pub use metrics::Metrics;
pub use record::BlobRecord;
pub use state::{State, Totals};
pub use verify::Difference;

use fault::Fault;
use opening::Opening;
use owner::Owner;
use place::Place;
use queue::End;
use recency::Recency;
use rows::Rows;
use state::Shared;

/// How long a handle that is dropped without being closed waits for the database's lock to be free again.
const DROP_LIMIT: Duration = Duration::from_secs(2);

/// Where the index lies and what it may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its directory. Its parent, which holds the epoch file and what was set aside, has to exist.
    pub directory: PathBuf,
    /// How much memory the database may use for its cache, in bytes. It takes up to twice as much, and 40 bytes a row.
    pub cache_capacity: u64,
    /// How much room to keep for the day on which the disk is full, in bytes.
    pub ballast: u64,
}

impl Settings {
    /// The usual settings: 64 MiB of cache, 64 MiB of ballast.
    pub fn new(directory: PathBuf) -> Settings {
        Settings { directory, cache_capacity: 64 << 20, ballast: 64 << 20 }
    }
}

/// The index. Clones share it; dropping the last without [`Index::close`] is like being killed.
#[derive(Clone)]
pub struct Index {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    truth: Arc<dyn Truth>,
    recency: Recency,
}

impl Index {
    /// Begins to open the index and returns. Whatever is wrong with it shows in [`Index::state`] and heals by itself, as
    /// far as it can.
    pub fn open(settings: Settings, truth: Arc<dyn Truth>, clock: Clock, metrics: Metrics) -> Index {
        let shared = Arc::new(Shared::new(metrics.clone()));
        let place = Place::new(settings.directory);
        // Not to know it is to compare once for nothing.
        let overlooked = place.announce_session().unwrap_or(true);
        let opening = Opening {
            place,
            overlooked,
            cache_capacity: settings.cache_capacity,
            truth: Arc::clone(&truth),
            clock,
            metrics,
            shared: Arc::clone(&shared),
            warned: Once::new(),
        };
        let owner = Owner::new(opening, settings.ballast);
        if let Err(error) = thread::run("larder-index", move || owner.run()) {
            let reason = format!("no thread for it: {error}");
            warn!(reason, "there is no index until the next start");
            shared.set_state(State::Degraded { reason });
            shared.queue.ended(false);
        }
        Index { handle: Arc::new(Handle { shared, truth, recency: Recency::new() }) }
    }

    /// Takes note of a change that was made to the files. Returns at once; the row follows. When more is recorded than can
    /// be written, uses are forgotten, and the index is compared with the files afterwards.
    pub fn record(&self, change: Change) {
        if let Change::Used { digest, at } = &change
            && !self.handle.recency.is_news(digest, *at)
        {
            return;
        }
        self.handle.shared.queue.record(change);
    }

    /// What is known of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<BlobRecord> {
        self.ask(|rows| query::blob(rows, digest))
    }

    /// The blobs after one, in the order of their digests.
    pub fn blobs(&self, after: Option<&Digest>, limit: usize) -> Vec<(Digest, BlobRecord)> {
        self.ask(|rows| query::blobs(rows, after, limit))
    }

    /// When upstream last said what a tag points at, in Unix seconds.
    pub fn tag_checked(&self, repository: &Repository, tag: &Tag) -> Option<u64> {
        self.ask(|rows| query::tag(rows, &home(repository), tag)).map(|record| record.checked)
    }

    /// The hosted repositories after one that hold something or have a tag, in bytewise order.
    pub fn hosted(&self, after: Option<&RepoName>, limit: usize) -> Vec<RepoName> {
        self.ask(|rows| query::hosted(rows, after, limit))
    }

    /// Some hosted repositories that hold a digest, in bytewise order.
    pub fn hosts_of(&self, digest: &Digest, limit: usize) -> Vec<RepoName> {
        self.ask(|rows| query::hosts_of(rows, digest, limit))
    }

    /// The cached repositories after one that hold something or have a tag, in bytewise order of registry and name.
    pub fn repositories(&self, after: Option<&Repository>, limit: usize) -> Vec<Repository> {
        self.ask(|rows| query::repositories(rows, after, limit))
    }

    /// A cached repository's tags after one, in bytewise order.
    pub fn tags(&self, repository: &Repository, after: Option<&Tag>, limit: usize) -> Vec<Tag> {
        self.ask(|rows| query::tags(rows, &home(repository), after, limit))
    }

    /// Some cached repositories that hold a digest, in bytewise order.
    pub fn repositories_of(&self, digest: &Digest, limit: usize) -> Vec<Repository> {
        self.ask(|rows| query::repositories_of(rows, digest, limit))
    }

    /// What a cached repository holds after one digest, in the order of digests.
    pub fn links(&self, repository: &Repository, after: Option<&Digest>, limit: usize) -> Vec<(Digest, Link)> {
        self.ask(|rows| query::links(rows, &home(repository), after, limit))
    }

    /// All blobs together, as of the last change that was applied. Costs nothing.
    pub fn totals(&self) -> Totals {
        self.handle.shared.totals()
    }

    /// How far the answers can be relied on.
    pub fn state(&self) -> State {
        self.handle.shared.state()
    }

    /// Asks for a comparison with the files, in the background: for when they were changed by someone who could not
    /// record it.
    pub fn compare(&self) {
        self.handle.shared.queue.compare();
    }

    /// Waits until everything recorded so far is applied, and the index is neither opening nor rebuilding any more. Says
    /// whether it came to that in time. Blocks.
    pub fn settle(&self, within: Duration) -> bool {
        self.handle.shared.queue.settle(within)
    }

    /// Compares the index with the files and says where they differ. Blocks, takes long, and is right only while nothing
    /// changes: settle it first.
    ///
    /// # Errors
    /// One of them could not be read.
    pub fn verify(&self) -> io::Result<Vec<Difference>> {
        let rows = self.handle.shared.rows().ok_or_else(|| io::Error::other("the index is not open"))?;
        verify::verify(&rows, self.totals(), self.handle.truth.as_ref())
    }

    /// Applies everything, closes the database, and then writes down that this was done. Says whether it was: if not, the
    /// next start compares the index with the files. Blocks. Clones of the handle get no answers afterwards.
    pub fn close(self, within: Duration) -> bool {
        let queue = &self.handle.shared.queue;
        queue.end(End::Close);
        queue.wait_for_end(within).unwrap_or(false)
    }

    fn ask<T: Default>(&self, question: impl FnOnce(&Rows) -> Result<T, Fault>) -> T {
        let Some(rows) = self.handle.shared.rows() else { return T::default() };
        question(&rows).unwrap_or_else(|fault| {
            self.handle.shared.queue.report(fault);
            T::default()
        })
    }
}

fn home(repository: &Repository) -> Home {
    Home::Cached(repository.clone())
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.end(End::Abandon);
        if self.shared.queue.wait_for_end(DROP_LIMIT).is_none() {
            warn!("the index is still busy; it is left behind");
        }
    }
}
