//! A fill's share of the line: what its connections ask before they read on.
//!
//! Never reads. Without a limit on the line nobody waits here; a flow tells then only whether a client waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::throttle::{FlowId, Priority, Throttle, Ticket};
use crate::clock::Clock;

/// How the line of one upstream is shared among its flows.
#[derive(Debug)]
pub struct Shares {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    throttle: Throttle,
    // Those who wait; whoever is not in here any more has had its turn. One of them, the next, watches the time.
    waiting: HashMap<Ticket, Arc<Notify>>,
    flows: FlowId,
}

impl Shares {
    /// Shares of `rate` bytes per second.
    pub fn new(rate: u64, clock: Clock) -> Shares {
        let throttle = Throttle::new(rate, clock.tick());
        Shares { clock, state: Mutex::new(State { throttle, waiting: HashMap::new(), flows: 0 }) }
    }

    /// Counts bytes that nobody waits for.
    pub fn spend(&self, bytes: usize) {
        let now = self.clock.tick();
        self.state().throttle.spend(bytes as u64, now);
    }

    /// Whether someone waits for a turn.
    pub fn is_busy(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    async fn turn(&self, flow: FlowId, bytes: usize) {
        let call = Arc::new(Notify::new());
        let ticket = {
            let mut state = self.state();
            let ticket = state.throttle.enter(flow, bytes as u64);
            state.waiting.insert(ticket, call.clone());
            ticket
        };
        let _place = QueuePlace { shares: self, flow, ticket };
        loop {
            let pause = {
                let now = self.clock.tick();
                let mut state = self.state();
                let granted = state.throttle.settle(now);
                for ticket in &granted {
                    state.waiting.remove(ticket).iter().for_each(|call| call.notify_one());
                }
                if !granted.is_empty() {
                    state.wake_next();
                }
                if !state.waiting.contains_key(&ticket) {
                    return;
                }
                (state.throttle.next() == Some(ticket)).then(|| state.throttle.pause())
            };
            match pause {
                // Called or not: it looks again.
                Some(pause) => drop(timeout(pause, call.notified()).await),
                None => call.notified().await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_next(&self) {
        self.throttle.next().and_then(|ticket| self.waiting.get(&ticket)).iter().for_each(|call| call.notify_one());
    }
}

/// Given up when it is dropped, as by a reader that stops waiting.
struct QueuePlace<'a> {
    shares: &'a Shares,
    flow: FlowId,
    ticket: Ticket,
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        let mut state = self.shares.state();
        state.waiting.remove(&self.ticket);
        if state.throttle.leave(self.flow, self.ticket) {
            state.wake_next();
        }
    }
}

/// What is fetched for one purpose over one upstream, by one connection or several. Clones are the same flow.
#[derive(Clone, Debug)]
pub struct Flow {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    share: Option<(Arc<Shares>, FlowId)>,
    foreground: watch::Sender<bool>,
}

impl Flow {
    /// A flow among `shares`, if the line is limited.
    pub fn new(shares: Option<&Arc<Shares>>, priority: Priority) -> Flow {
        let share = shares.map(|shares| {
            let mut state = shares.state();
            state.flows += 1;
            let id = state.flows;
            state.throttle.open(id, priority);
            (shares.clone(), id)
        });
        let foreground = watch::Sender::new(priority == Priority::Foreground);
        Flow { inner: Arc::new(Inner { share, foreground }) }
    }

    /// A client waits for it from now on.
    pub fn raise(&self) {
        if self.inner.foreground.send_replace(true) {
            return;
        }
        if let Some((shares, id)) = &self.inner.share {
            let mut state = shares.state();
            state.throttle.raise(*id);
            state.wake_next();
        }
    }

    /// Whether a client waits for it.
    pub fn is_foreground(&self) -> bool {
        *self.inner.foreground.borrow()
    }

    /// Waits until a client does.
    pub async fn foreground(&self) {
        // The sender is in the flow itself.
        let _ = self.inner.foreground.subscribe().wait_for(|foreground| *foreground).await;
    }

    /// Waits for a turn that pays for `bytes` that were read. A wait that is given up has paid nothing.
    pub async fn turn(&self, bytes: usize) {
        if let Some((shares, id)) = &self.inner.share
            && bytes > 0
        {
            shares.turn(*id, bytes).await;
        }
    }
}

impl PartialEq for Flow {
    fn eq(&self, other: &Flow) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Flow {}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some((shares, id)) = &self.share {
            shares.state().throttle.close(*id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    const RATE: u64 = 1_000;

    fn shares() -> (Arc<Shares>, Clock) {
        let clock = Clock::system();
        (Arc::new(Shares::new(RATE, clock.clone())), clock)
    }

    #[tokio::test]
    async fn a_turn_that_is_given_up_is_free_and_calls_the_next() {
        let (shares, clock) = shares();
        let (one, two) =
            (Flow::new(Some(&shares), Priority::Foreground), Flow::new(Some(&shares), Priority::Foreground));
        // As good as for ever, unless the clock is moved.
        shares.spend(RATE as usize * 3600);
        let given_up = Box::pin(one.turn(50));
        let mut stays = Box::pin(two.turn(60));
        let mut given_up = given_up;
        assert!(given_up.as_mut().now_or_never().is_none() && stays.as_mut().now_or_never().is_none());
        drop(given_up);
        clock.advance(Duration::from_secs(3601));
        stays.await;
        assert!(!shares.is_busy());
    }

    #[tokio::test]
    async fn a_flow_that_is_raised_goes_first() {
        let (shares, clock) = shares();
        let flow = || Flow::new(Some(&shares), Priority::Background);
        let (early, raised) = (flow(), flow());
        shares.spend(RATE as usize * 3600);
        let (mut first, mut second) = (Box::pin(early.turn(RATE as usize * 3600)), Box::pin(raised.turn(10)));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        raised.raise();
        assert!(raised.is_foreground());
        clock.advance(Duration::from_secs(3601));
        second.await;
        assert!(first.as_mut().now_or_never().is_some(), "what is left of a burst is the background's");
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let flow = Flow::new(None, Priority::Background);
        flow.turn(usize::MAX).await;
        flow.raise();
        flow.foreground().await;
    }
}
