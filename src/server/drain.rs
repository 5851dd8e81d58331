//! The end of serving: when it begins, and when it is over. Never closes anything itself: whoever serves watches it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What the network and the kernel may need to show what a client has sent.
const LAST_CALL: Duration = Duration::from_millis(100);

/// The wish to stop. Clones share it, and one of them in each listener makes all of them end together.
#[derive(Clone, Debug)]
pub struct Drain {
    /// When what is left is cut; none as long as nobody wants to stop.
    deadline: watch::Sender<Option<Instant>>,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain::new()
    }
}

impl Drain {
    /// Nobody wants to stop.
    pub fn new() -> Drain {
        Drain { deadline: watch::Sender::new(None) }
    }

    /// Listeners stop to accept; a response that is under way has `grace` to finish. Asked for a second time, it is over
    /// now: that is what a second signal means.
    pub fn begin(&self, grace: Duration) {
        self.deadline.send_modify(|deadline| {
            let grace = if deadline.is_some() { Duration::ZERO } else { grace };
            *deadline = Some(Instant::now() + grace);
        });
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// Waits until it begins, and then for those who have come before and whose words are still on their way through the
    /// kernel: to close at once would be to answer them with a reset.
    pub async fn last_call(&self) {
        self.begun().await;
        tokio::time::sleep(LAST_CALL).await;
    }

    /// Waits until it begins.
    pub async fn begun(&self) {
        // An error would mean that no sender is left; this one is.
        let _ = self.deadline.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until the deadline, wherever it may move to.
    pub async fn over(&self) {
        let mut changes = self.deadline.subscribe();
        loop {
            let deadline = *changes.borrow_and_update();
            tokio::select! {
                _ = changes.changed() => {}
                () = passing(deadline) => return,
            }
        }
    }
}

async fn passing(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn is_over_at_its_deadline() {
        let (drain, start) = (Drain::new(), Instant::now());
        assert!(!drain.has_begun());
        drain.begin(SOON);
        drain.begun().await;
        assert!(start.elapsed() < SOON);
        drain.over().await;
        assert!(start.elapsed() >= SOON);
    }

    #[tokio::test]
    async fn a_second_wish_is_granted_at_once() {
        let (drain, start) = (Drain::new(), Instant::now());
        drain.begin(Duration::from_secs(30));
        let again = async {
            tokio::time::sleep(SOON).await;
            drain.clone().begin(Duration::from_secs(30));
        };
        tokio::join!(drain.over(), again);
        assert!(start.elapsed() >= SOON && start.elapsed() < Duration::from_secs(10));
    }
}
