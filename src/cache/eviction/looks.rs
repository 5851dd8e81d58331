//! The thread on which all that is cached is looked at, for evictions and for people. Decides nothing.
//!
//! One for all looks, one after the other: the memory that one took serves the next, where each thread of the runtime's would
//! keep it for itself; and what a manifest names is read once for all of them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::Builder;

use tokio::sync::oneshot;

use super::survey::Named;
use crate::task;

type Order = Box<dyn FnOnce(&mut Named) + Send>;

/// Where looks are ordered. The thread ends with the last clone.
#[derive(Clone)]
pub struct Looks {
    orders: Sender<Order>,
}

impl Looks {
    /// Starts the thread.
    pub fn begin() -> Looks {
        let (orders, ordered) = channel::<Order>();
        let work = move || {
            let mut named = Named::new();
            ordered.into_iter().for_each(|order| order(&mut named));
        };
        if let Err(error) = Builder::new().name("larder-look".to_owned()).spawn(work) {
            tracing::error!(%error, "no thread to look at what is here: looks take more memory than they need");
        }
        Looks { orders }
    }

    /// Runs `work`, which blocks, with what is known of what manifests name. A panic in it goes on in the caller.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Named) -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let order: Order = Box::new(move |named| {
            // What it knew is still what manifests name. Nobody waits for it any more: fine.
            let _unwanted = done.send(catch_unwind(AssertUnwindSafe(|| work(named))));
        });
        if let Err(refused) = self.orders.send(order) {
            task::blocking(move || refused.0(&mut Named::new())).await;
        }
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            // An order that was taken is carried out.
            Err(_gone) => std::future::pending().await,
        }
    }
}
