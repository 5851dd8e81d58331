//! After an outage: the tags that were served stale are confirmed by a task, few at a time, while clients get what is here.
//!
//! The most used come first. Ends with the cache: the task keeps nothing of it alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::backlog::Backlog;
use super::tags::{Tags, WeakTags};
use crate::cache::ledger::OnBehalfOf;
use crate::cache::origin::Origins;
use crate::clock::Clock;
use crate::oci::Registry;
use crate::task;

/// Tags that are asked about at one time.
const AT_ONCE: usize = 4;
/// The pause before the next one is between this and twice as long: ten thousand take minutes, and no second has a peak.
const PAUSE: Duration = Duration::from_millis(10);

/// Begins to watch over every upstream's outages.
pub fn watch(origins: &Origins, tags: &Tags, clock: &Clock) {
    for (registry, origin) in origins.all() {
        let mut recoveries = origin.upstream.recoveries();
        let upkeep = Upkeep {
            registry: registry.clone(),
            backlog: tags.backlog(),
            tags: tags.downgrade(),
            clock: clock.clone(),
        };
        task::spawn("recovery", async move {
            while recoveries.changed().await.is_ok() {
                upkeep.work_off().await;
            }
        });
    }
}

struct Upkeep {
    registry: Registry,
    backlog: Arc<Backlog>,
    tags: WeakTags,
    clock: Clock,
}

impl Upkeep {
    async fn work_off(&self) {
        let order = self.backlog.begin(&self.registry);
        let at_work = AtWork { upkeep: self };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        tracing::info!(upstream = %self.registry, tags = order.len(), "tags that were served stale are asked about");
        for key in order {
            self.clock.sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
            // Never closed: the semaphore lives as long as this.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Some(tags) = self.tags.upgrade() else { return };
            // The next outage has begun, or the budget is used up: whoever asks meets the same decision.
            if !tags.can_be_asked(&key) {
                break;
            }
            if !self.backlog.is_queued(&key) {
                continue;
            }
            let backlog = self.backlog.clone();
            task::spawn("recovery", async move {
                if let Err(error) = tags.refresh(&key, OnBehalfOf::Refresh).await {
                    let (repository, tag) = &key;
                    tracing::debug!(%repository, %tag, %error, "a tag could not be confirmed after an outage");
                }
                backlog.remove(&key);
                drop(place);
            });
        }
        // Until the last question has ended nobody waits for one.
        let _all = places.acquire_many(AT_ONCE as u32).await;
        drop(at_work);
    }
}

/// However the work ends, nobody goes on waiting for it.
struct AtWork<'a> {
    upkeep: &'a Upkeep,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.upkeep.backlog.end(&self.upkeep.registry);
    }
}
