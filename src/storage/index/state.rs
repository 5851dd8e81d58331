//! What the index's owner shows to everyone else: its state, its totals, and the open database for reading. Decides
//! nothing.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::metrics::Metrics;
use super::queue::Queue;
use super::rows::Rows;
use super::table::Tally;

/// How far the index's answers can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being opened; it has no answers yet.
    Opening,
    /// It is being compared with the files, or built from them: it may lack rows, or have too many.
    Rebuilding {
        /// How much the walk over the files has told of so far.
        walked: u64,
    },
    /// It says what the files say.
    Ready,
    /// It has no answers, or wrong ones, and tries again later. The files are served all the same.
    Degraded {
        /// Why.
        reason: String,
    },
    /// It was closed.
    Closed,
}

impl State {
    fn number(&self) -> i64 {
        match self {
            State::Ready => 0,
            State::Opening => 1,
            State::Rebuilding { .. } => 2,
            State::Degraded { .. } => 3,
            State::Closed => 4,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Opening => f.write_str("opening"),
            State::Rebuilding { walked } => write!(f, "rebuilding, {walked} entries so far"),
            State::Ready => f.write_str("ready"),
            State::Degraded { reason } => write!(f, "degraded: {reason}"),
            State::Closed => f.write_str("closed"),
        }
    }
}

/// All blobs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub blobs: u64,
    /// Their length together, in bytes.
    pub bytes: u64,
}

/// What the owner and everyone else have in common.
pub(super) struct Shared {
    pub(super) queue: Queue,
    rows: RwLock<Option<Arc<Rows>>>,
    state: Mutex<State>,
    totals: Mutex<Totals>,
    metrics: Metrics,
}

impl Shared {
    pub(super) fn new(metrics: Metrics) -> Shared {
        metrics.state.set(State::Opening.number());
        Shared {
            queue: Queue::default(),
            rows: RwLock::default(),
            state: Mutex::new(State::Opening),
            totals: Mutex::default(),
            metrics,
        }
    }

    pub(super) fn rows(&self) -> Option<Arc<Rows>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_rows(&self, rows: Option<Arc<Rows>>) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_state(&self, state: State) {
        self.metrics.state.set(state.number());
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_totals(&self, tally: Tally) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = Totals { blobs: tally.blobs, bytes: tally.bytes };
    }
}
