//! A warning about something that can happen thousands of times per second, said now and then. Never says it itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const SILENCE: Duration = Duration::from_secs(10);

/// When something was last complained about.
#[derive(Default)]
pub struct Complaint {
    last: Mutex<Option<Instant>>,
}

impl Complaint {
    /// Whether it is time to say it. Whoever is told so says it.
    pub fn is_due(&self) -> bool {
        let (mut last, now) = (self.last.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let due = last.is_none_or(|last| now - last >= SILENCE);
        if due {
            *last = Some(now);
        }
        due
    }
}
