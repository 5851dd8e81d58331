//! What the operator's page shows outlives the process: taken up at the start, written each minute and at the end. Never in a
//! client's way: what cannot be read or written is a line in the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::http::Activity;
use crate::storage::Store;
use crate::task;

/// How much of it a power cut may take.
const EACH: Duration = Duration::from_secs(60);

/// The record of the doors, and where it is kept. Clones share both.
#[derive(Clone)]
pub struct KeptActivity {
    activity: Activity,
    store: Store,
    written: Arc<Mutex<Vec<u8>>>,
}

impl KeptActivity {
    /// Takes up what an earlier process wrote, if it is whole.
    pub async fn take_up(activity: Activity, store: Store) -> KeptActivity {
        let reader = store.clone();
        match task::blocking(move || reader.activity()).await {
            Ok(Some(line)) if !activity.take_up(&line) => {
                tracing::warn!("what the operator's page remembered was written by another version: it begins anew");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "what the operator's page remembered cannot be read: it begins anew"),
        }
        let written = Arc::new(Mutex::new(activity.written()));
        KeptActivity { activity, store, written }
    }

    /// Writes for ever.
    pub async fn keep(self, clock: Clock) {
        loop {
            clock.sleep(EACH).await;
            self.write().await;
        }
    }

    /// Writes what is there now, unless it was.
    pub async fn write(&self) {
        let this = self.clone();
        task::blocking(move || {
            // Held while it is written: the last word is the latest.
            let mut written = this.written.lock().unwrap_or_else(PoisonError::into_inner);
            let line = this.activity.written();
            if *written == line {
                return;
            }
            match this.store.set_activity(&line) {
                Ok(()) => *written = line,
                Err(error) => tracing::warn!(%error, "what the operator's page remembers is not kept"),
            }
        })
        .await;
    }
}
