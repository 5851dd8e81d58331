//! Which database to use: the one that is there, if it can be trusted, or a new one. Never writes a row about a file.

use std::sync::{Arc, Once};

use tracing::{info, warn};

use crate::clock::Clock;

use super::change::Truth;
use super::epoch::{Epoch, Trust, fresh_home};
use super::fault::Fault;
use super::key;
use super::ledger::Ledger;
use super::metrics::Metrics;
use super::open::{self, Opened};
use super::place::Place;
use super::state::Shared;
use super::sync_mode::SyncMode;

/// What a first session has before it.
const NO_SESSION: &str = "none";

/// An open index.
pub(super) struct Up {
    pub(super) ledger: Ledger,
    pub(super) epoch: Epoch,
    /// Whether it says what the files say; otherwise it has to be compared with them.
    pub(super) complete: bool,
}

/// Opens the index, as often as it takes.
pub(super) struct Opening {
    pub(super) place: Place,
    pub(super) cache_capacity: u64,
    pub(super) truth: Arc<dyn Truth>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) shared: Arc<Shared>,
    /// Whether the session before this one may have recorded changes without having opened the index.
    pub(super) overlooked: bool,
    /// That a power cut will cost a rebuild is worth saying, once.
    pub(super) warned: Once,
}

impl Opening {
    /// Opens the index that is there, or a new one where that one cannot be trusted.
    ///
    /// # Errors
    /// The disk is at fault, not the index.
    pub(super) fn open(&self) -> Result<Up, Fault> {
        let Some(epoch) = Epoch::read(&self.place.epoch())? else {
            if self.place.is_vacant()? && self.truth.is_empty()? {
                return self.create();
            }
            return self.anew("nothing vouches for it");
        };
        match self.open_known(&epoch) {
            Err(Fault::Damaged(reason)) => self.anew(&reason),
            result => result,
        }
    }

    /// Sets aside what is there and begins anew.
    pub(super) fn anew(&self, reason: &str) -> Result<Up, Fault> {
        warn!(reason, "the index is built anew from the files");
        self.place.set_aside(self.clock.unix_seconds())?;
        self.metrics.rebuilds.inc();
        self.create()
    }

    fn create(&self) -> Result<Up, Fault> {
        let name = fresh_home();
        self.place.make_home(&name)?;
        let opened = self.open_home(&name, true)?;
        self.begin_session(opened, name, NO_SESSION.to_owned(), false)
    }

    fn open_known(&self, epoch: &Epoch) -> Result<Up, Fault> {
        let trust = epoch.trust();
        if let Trust::Nothing(reason) = trust {
            return Err(Fault::Damaged(reason.to_owned()));
        }
        let opened = self.open_home(&epoch.home, false)?;
        if let Err(fault) = self.check(epoch, &trust, &opened) {
            open::close(opened.rows);
            return Err(fault);
        }
        info!(rows = opened.tally.sum.rows, ?trust, "the index is open");
        // Someone may have put the files back while nobody ran.
        let forsaken = opened.tally.blobs == 0 && !self.truth.is_empty().unwrap_or(true);
        let complete = matches!(trust, Trust::Closed(_)) && !forsaken && !self.overlooked;
        self.begin_session(opened, epoch.home.clone(), epoch.id.clone(), complete)
    }

    fn check(&self, epoch: &Epoch, trust: &Trust, opened: &Opened) -> Result<(), Fault> {
        let lost = matches!(trust, Trust::Closed(sum) if *sum != opened.tally.sum);
        let reason = if !epoch.covers(&opened.session) {
            "it is not the one that ran last"
        } else if lost {
            "it has lost rows"
        } else {
            return Ok(());
        };
        Err(Fault::Damaged(reason.to_owned()))
    }

    fn open_home(&self, name: &str, new: bool) -> Result<Opened, Fault> {
        let wanted = || self.shared.queue.ending().is_none();
        open::open(&self.place.home(name), new, self.cache_capacity, wanted)
    }

    /// The file first: until the database bears the new id as well, the file says that it may bear the old one.
    fn begin_session(&self, opened: Opened, home: String, previous: String, complete: bool) -> Result<Up, Fault> {
        let Opened { rows, tally, .. } = opened;
        let epoch = Epoch::begin(home, previous, rows.sync_mode());
        self.show(rows.sync_mode());
        let begun = epoch
            .write(&self.place.epoch())
            .map_err(Fault::from)
            .and_then(|()| rows.put(key::EPOCH, epoch.id.as_bytes()))
            .and_then(|_| rows.flush());
        match begun {
            Ok(()) => {
                self.place.session_has_begun();
                Ok(Up { ledger: Ledger::new(Arc::new(rows), tally), epoch, complete })
            }
            Err(fault) => {
                open::close(rows);
                Err(fault)
            }
        }
    }

    fn show(&self, sync_mode: SyncMode) {
        self.metrics.sync_mode.set(i64::from(sync_mode == SyncMode::Synchronous));
        if sync_mode == SyncMode::Refused {
            self.warned.call_once(|| {
                warn!("this file system cannot keep the index's writes in order: a power cut will cost a rebuild");
            });
        }
    }
}
