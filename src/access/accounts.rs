//! The file of accounts as it is now: read at the start, and again when it has changed. Never takes a bad one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::error::SetupError;
use super::htpasswd::Accounts;
use crate::clock::Clock;
use crate::task;

/// How long the file is not looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What changes when a file does: time, size and inode, or nothing if it is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

/// A followed file of accounts.
pub struct AccountsFile {
    path: PathBuf,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    accounts: Arc<Accounts>,
    /// How the file looked when it was last judged, good or bad.
    judged: Stamp,
    looked: Instant,
}

impl AccountsFile {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is no good.
    pub fn open(path: PathBuf, clock: Clock) -> Result<AccountsFile, SetupError> {
        // The stamp first: what changes while it is read is read again.
        let (judged, looked) = (stamp(&path), clock.tick());
        let state = State { accounts: Arc::new(read(&path)?), judged, looked };
        Ok(AccountsFile { path, clock, state: Mutex::new(state) })
    }

    /// The accounts, not older than a second.
    pub async fn current(&self) -> Arc<Accounts> {
        let Some(judged) = self.due() else { return self.lock().accounts.clone() };
        let path = self.path.clone();
        let found = task::blocking(move || {
            let now = stamp(&path);
            (now != judged).then(|| (now, read(&path)))
        });
        if let Some((stamp, read)) = found.await {
            self.judge(stamp, read);
        }
        self.lock().accounts.clone()
    }

    /// What to compare with, if it is time to look and nobody else does.
    fn due(&self) -> Option<Stamp> {
        let mut state = self.lock();
        let now = self.clock.tick();
        (now.duration_since(state.looked) >= LOOK_EVERY).then(|| {
            state.looked = now;
            state.judged
        })
    }

    fn judge(&self, stamp: Stamp, read: Result<Accounts, SetupError>) {
        let mut state = self.lock();
        state.judged = stamp;
        match read {
            Ok(accounts) => {
                state.accounts = Arc::new(accounts);
                tracing::info!(path = ?self.path, "the accounts were read again");
            }
            Err(error) => tracing::error!(%error, "the accounts are not read again, the old ones are kept"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn read(path: &Path) -> Result<Accounts, SetupError> {
    let text = fs::read_to_string(path).map_err(|source| SetupError::Read { path: path.to_owned(), source })?;
    Accounts::parse(&text).map_err(|source| SetupError::Htpasswd { path: path.to_owned(), source })
}
