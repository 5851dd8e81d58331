//! One host of an upstream, as the face asks it: a question that meets a passing disorder is asked once more.

use std::sync::Arc;
use std::time::Duration;

use super::asker::Asker;
use super::credentials::Credentials;
use super::error::UpstreamError;
use super::health::Health;
use super::line::{Answer, Line};
use super::question::Question;
use crate::clock::Clock;

/// Pause before a question is asked once more, in milliseconds.
const PAUSE: std::ops::Range<u64> = 100..300;
/// A failure that took longer is not asked again: who waits has a time limit, too.
const SOON: Duration = Duration::from_secs(1);

/// The registry of an upstream, or a fallback of it.
pub struct Host {
    asker: Arc<Asker>,
    credentials: Credentials,
    clock: Clock,
}

impl Host {
    /// The host that `asker` asks with `credentials`.
    pub fn new(asker: Arc<Asker>, credentials: Credentials, clock: Clock) -> Host {
        Host { asker, credentials, clock }
    }

    /// The line to it.
    pub fn line(&self) -> &Arc<Line> {
        self.asker.line()
    }

    /// Its health.
    pub fn health(&self) -> &Arc<Health> {
        self.asker.line().health()
    }

    /// The answer to `question`; every status but success is an error.
    pub async fn ask(&self, question: Question) -> Result<Answer, UpstreamError> {
        let question = Arc::new(question);
        let (was_well, began) = (self.health().is_well(), self.clock.tick());
        let error = match self.asker.ask(&question, &self.credentials).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let is_soon = self.clock.tick().saturating_duration_since(began) < SOON;
        if !error.is_transient() || !was_well[error.part() as usize] || !is_soon {
            return Err(error);
        }
        self.clock.sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
        if self.health().admit(error.part()).is_err() {
            return Err(error);
        }
        self.asker.ask(&question, &self.credentials).await
    }
}
