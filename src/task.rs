//! The one door through which work leaves the current task. Never decides what runs, or when it stops.
//!
//! A task started here has a name in every log line that it writes, and goes on whatever becomes of who started it. What
//! a request causes knows which request that was, through all tasks: [`request`] is what the log writes beside the line.

use std::fmt;
use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

tokio::task_local! {
    static REQUEST: Option<RequestId>;
}

/// What one request is called in the log and in `X-Request-Id`: ours alone, because a client's own could be anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// A new one: 64 random bits.
    pub fn random() -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = fastrand::u64(..);
        RequestId(std::array::from_fn(|n| DIGITS[(bits >> (4 * n)) as usize & 15]))
    }

    /// Its 16 digits.
    pub fn as_str(&self) -> &str {
        // Nothing but digits is ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Runs `future` as something that this request causes, with all the tasks that it starts.
pub fn caused_by<F: Future>(request: RequestId, future: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(Some(request), future)
}

/// The request that caused what runs now, if one did.
pub fn request() -> Option<RequestId> {
    REQUEST.try_with(|request| *request).ok().flatten()
}

/// Runs `future` in a task of its own.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(REQUEST.scope(request(), future).instrument(tracing::info_span!("task", name)))
}

/// Runs `work`, which blocks, on a thread that is there for it. A panic in it goes on in the caller.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let cause = request();
    let work = move || REQUEST.sync_scope(cause, work);
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work, and then nobody waits for it any more.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_request_causes_knows_it_through_every_door() {
        let id = RequestId::random();
        assert_eq!((id.as_str().len(), request()), (16, None));
        let seen = caused_by(id, async {
            let task = spawn("outer", async { spawn("inner", async { blocking(request).await }).await.unwrap() });
            (request(), task.await.unwrap())
        });
        assert_eq!(seen.await, (Some(id), Some(id)));
        assert_ne!(RequestId::random(), id);
        assert_eq!(spawn("alone", async { request() }).await.unwrap(), None);
    }
}
