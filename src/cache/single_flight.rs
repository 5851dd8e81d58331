//! One piece of work at a time per key, whoever asks and however many: for answers that are small and whole.
//!
//! The work is a task of its own: the client who asked first may leave, and nobody else notices. What is streamed while
//! it arrives (blobs) flies in `flight.rs` instead. Work outlives its clients, so it has bounds of its own: in number, and
//! in time, lest an upstream that trickles holds a key for ever.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::error::CacheError;
use crate::task;

/// Work at one time.
const MAX_RUNNING: usize = 4096;
/// How long one piece of work may take in all. Clients wait shorter.
const LIMIT: Duration = Duration::from_secs(60);

type Answer<V> = Option<Result<V, CacheError>>;
type Table<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Answer<V>>>>>;

/// Running work by key.
pub struct SingleFlight<K, V> {
    name: &'static str,
    running: Table<K, V>,
}

/// Whether this caller's request began the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It did.
    Led,
    /// It came to work that was running.
    Joined,
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty table; `name` is the tasks' name in the log.
    pub fn new(name: &'static str) -> SingleFlight<K, V> {
        SingleFlight { name, running: Table::default() }
    }

    /// Waits for the work on `key`, after beginning it with `work` if nobody has.
    pub async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> (Result<V, CacheError>, Role)
    where
        F: Future<Output = Result<V, CacheError>> + Send + 'static,
    {
        let (mut answer, role) = match self.join_or_lead(key) {
            Ok(Entry::Running(answer)) => (answer, Role::Joined),
            Ok(Entry::New(sender, landing, answer)) => {
                self.begin(work(), sender, landing);
                (answer, Role::Led)
            }
            Err(error) => return (Err(error), Role::Joined),
        };
        let result = match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Err(CacheError::Abandoned)),
            Err(_sender_gone) => Err(CacheError::Abandoned),
        };
        (result, role)
    }

    fn join_or_lead(&self, key: K) -> Result<Entry<K, V>, CacheError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = running.get(&key) {
            return Ok(Entry::Running(answer.clone()));
        }
        if running.len() >= MAX_RUNNING {
            return Err(CacheError::Busy);
        }
        let (sender, answer) = watch::channel(None);
        running.insert(key.clone(), answer.clone());
        Ok(Entry::New(sender, Landing { key, running: self.running.clone() }, answer))
    }

    fn begin<F>(&self, work: F, sender: watch::Sender<Answer<V>>, landing: Landing<K, V>)
    where
        F: Future<Output = Result<V, CacheError>> + Send + 'static,
    {
        task::spawn(self.name, async move {
            let result = timeout(LIMIT, work).await.unwrap_or(Err(CacheError::Late));
            drop(landing);
            sender.send_replace(Some(result));
        });
    }
}

enum Entry<K: Eq + Hash, V> {
    Running(watch::Receiver<Answer<V>>),
    New(watch::Sender<Answer<V>>, Landing<K, V>, watch::Receiver<Answer<V>>),
}

/// Held by the task: however it ends, the next one who asks begins anew.
struct Landing<K: Eq + Hash, V> {
    key: K,
    running: Table<K, V>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_run_and_the_first_may_leave() {
        let flights = Arc::new(SingleFlight::<&str, usize>::new("test"));
        let runs = Arc::new(AtomicUsize::new(0));
        let (open, gate) = watch::channel(false);
        let caller = || {
            let (flights, runs, mut gate) = (flights.clone(), runs.clone(), gate.clone());
            async move {
                let work = || async move {
                    let run = runs.fetch_add(1, Ordering::SeqCst);
                    let _ = gate.wait_for(|open| *open).await;
                    Ok(run)
                };
                flights.join("key", work).await
            }
        };
        let mut first = Box::pin(caller());
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        let mut rest: Vec<_> = (0..20).map(|_| Box::pin(caller())).collect();
        for waiting in &mut rest {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        drop(first);
        open.send_replace(true);
        for waiting in rest {
            let (answer, role) = waiting.await;
            assert_eq!((answer.unwrap(), role), (0, Role::Joined));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let (answer, role) = caller().await;
        assert_eq!((answer.unwrap(), role), (1, Role::Led));
    }

    #[tokio::test]
    async fn a_panic_ends_the_wait_and_not_the_key() {
        let flights = SingleFlight::<&str, ()>::new("test");
        let (answer, _) = flights.join("key", || async { panic!("on purpose") }).await;
        assert!(matches!(answer, Err(CacheError::Abandoned)));
        let (answer, _) = flights.join("key", || async { Ok(()) }).await;
        assert!(answer.is_ok());
    }
}
