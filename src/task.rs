//! The one door through which work leaves the current task. Never decides what runs, or when it stops.
//!
//! A task started here has a name in every log line that it writes, and goes on whatever becomes of who started it.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Runs `future` in a task of its own.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::info_span!("task", name)))
}

/// Runs `work`, which blocks, on a thread that is there for it. A panic in it goes on in the caller.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work, and then nobody waits for it any more.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}
