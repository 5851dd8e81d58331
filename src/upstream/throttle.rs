//! How much of the line there is, and whose turn it is: a token bucket, and a fair queue of those who wait for it.
//!
//! Never waits and never asks what time it is. A flow is one share, however many connections it has. Bytes are paid for
//! after they were read, so the bucket may go below nothing: nobody reads on before it is back.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// What may be read at once after a pause, as a part of what a second brings.
const BURST: f64 = 0.1;

/// Who waits for the bytes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A client.
    Foreground,
    /// Nobody yet. Gets what the foreground leaves, be it nothing.
    Background,
}

/// A flow's name in the throttle.
pub type FlowId = u64;
/// A place in the queue.
pub type Ticket = u64;

/// The bucket and the queue. Bounded by its callers: a flow for each fill, a ticket for each connection.
#[derive(Debug)]
pub struct Throttle {
    rate: f64,
    level: f64,
    filled: Instant,
    flows: HashMap<FlowId, Flow>,
    // What the last one of each priority had had when its turn came: where whoever was idle goes on from.
    reached: [u64; 2],
    tickets: Ticket,
}

#[derive(Debug)]
struct Flow {
    priority: Priority,
    // Bytes that it has had, or would have had if it had always been there.
    served: u64,
    waiting: VecDeque<(Ticket, u64)>,
}

impl Throttle {
    /// A full bucket that `rate` bytes flow into each second.
    pub fn new(rate: u64, now: Instant) -> Throttle {
        let rate = rate.max(1) as f64;
        let (flows, reached) = (HashMap::new(), [0, 0]);
        Throttle { rate, level: rate * BURST, filled: now, flows, reached, tickets: 0 }
    }

    /// Begins a flow.
    pub fn open(&mut self, id: FlowId, priority: Priority) {
        let served = self.reached[priority as usize];
        self.flows.insert(id, Flow { priority, served, waiting: VecDeque::new() });
    }

    /// Ends a flow, and whatever of it waits.
    pub fn close(&mut self, id: FlowId) {
        self.flows.remove(&id);
    }

    /// A client waits for this flow from now on.
    pub fn raise(&mut self, id: FlowId) {
        let served = self.reached[Priority::Foreground as usize];
        if let Some(flow) = self.flows.get_mut(&id).filter(|flow| flow.priority == Priority::Background) {
            (flow.priority, flow.served) = (Priority::Foreground, served);
        }
    }

    /// Queues for a turn that pays for `bytes`.
    pub fn enter(&mut self, id: FlowId, bytes: u64) -> Ticket {
        self.tickets += 1;
        if let Some(flow) = self.flows.get_mut(&id) {
            // Who did not wait has saved nothing, but for a moment that it took to write what it had read.
            if flow.waiting.is_empty() {
                let reached = self.reached[flow.priority as usize];
                flow.served = flow.served.max(reached.saturating_sub((self.rate * BURST) as u64));
            }
            flow.waiting.push_back((self.tickets, bytes));
        }
        self.tickets
    }

    /// Leaves the queue; says whether it was still in it.
    pub fn leave(&mut self, id: FlowId, ticket: Ticket) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return false };
        let before = flow.waiting.len();
        flow.waiting.retain(|(waiting, _)| *waiting != ticket);
        flow.waiting.len() < before
    }

    /// Takes bytes that nobody queued for.
    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.fill(now);
        self.level -= bytes as f64;
    }

    /// Those whose turn has come, in order. They have paid.
    pub fn settle(&mut self, now: Instant) -> Vec<Ticket> {
        self.fill(now);
        let mut granted = Vec::new();
        while self.level > 0.0
            && let Some(id) = self.first()
            && let Some(flow) = self.flows.get_mut(&id)
            && let Some((ticket, bytes)) = flow.waiting.pop_front()
        {
            let reached = &mut self.reached[flow.priority as usize];
            *reached = flow.served.max(*reached);
            flow.served += bytes;
            self.level -= bytes as f64;
            granted.push(ticket);
        }
        granted
    }

    /// Whose turn is next.
    pub fn next(&self) -> Option<Ticket> {
        self.first().and_then(|id| self.flows[&id].waiting.front()).map(|(ticket, _)| *ticket)
    }

    /// How long until then.
    pub fn pause(&self) -> Duration {
        // One byte above nothing, and never less than a timer can tell.
        Duration::from_secs_f64(((1.0 - self.level) / self.rate).max(0.001))
    }

    fn first(&self) -> Option<FlowId> {
        let waiting = self.flows.iter().filter(|(_, flow)| !flow.waiting.is_empty());
        waiting.min_by_key(|(id, flow)| (flow.priority as usize, flow.served, **id)).map(|(id, _)| *id)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + passed * self.rate).min((self.rate * BURST).max(1.0));
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const RATE: u64 = 1_000_000;
    const PIECE: u64 = 10_000;

    /// Runs `connections` (the flow of each) for `seconds`, each of which always has another piece waiting, and says how
    /// many bytes each flow was granted.
    fn run(throttle: &mut Throttle, start: Instant, connections: &[FlowId], millis: u64) -> HashMap<FlowId, u64> {
        let mut waiting: HashMap<Ticket, FlowId> =
            connections.iter().map(|flow| (throttle.enter(*flow, PIECE), *flow)).collect();
        let mut granted = HashMap::new();
        for millis in 1..=millis {
            loop {
                let turns = throttle.settle(start + Duration::from_millis(millis));
                if turns.is_empty() {
                    break;
                }
                for ticket in turns {
                    let flow = waiting.remove(&ticket).unwrap();
                    *granted.entry(flow).or_insert(0) += PIECE;
                    waiting.insert(throttle.enter(flow, PIECE), flow);
                }
            }
        }
        for (ticket, flow) in waiting {
            assert!(throttle.leave(flow, ticket));
        }
        granted
    }

    fn throttle(flows: &[(FlowId, Priority)]) -> (Throttle, Instant) {
        let start = Clock::system().tick();
        let mut throttle = Throttle::new(RATE, start);
        for (id, priority) in flows {
            throttle.open(*id, *priority);
        }
        (throttle, start)
    }

    // A burst is not divided: whoever reads on at once gets it.
    fn is_about(bytes: u64, expected: u64) -> bool {
        bytes.abs_diff(expected) <= RATE / 10
    }

    use Priority::{Background, Foreground};

    #[test]
    fn a_second_brings_the_rate_and_a_pause_saves_up_a_tenth_of_it() {
        let (mut throttle, start) = throttle(&[(1, Foreground)]);
        assert!(is_about(run(&mut throttle, start, &[1], 2_000)[&1], 2 * RATE + RATE / 10));
        let later = start + Duration::from_secs(3600);
        assert!(is_about(run(&mut throttle, later, &[1], 1_000)[&1], RATE + RATE / 10));
    }

    #[test]
    fn a_flow_is_one_share_however_many_connections_it_has() {
        let (mut throttle, start) = throttle(&[(1, Foreground), (2, Foreground)]);
        let granted = run(&mut throttle, start, &[1, 1, 1, 1, 2], 4_000);
        assert!(is_about(granted[&1], granted[&2]), "{granted:?}");
    }

    #[test]
    fn who_was_idle_gets_its_share_from_now_on_and_not_what_it_missed() {
        let (mut throttle, start) = throttle(&[(1, Foreground), (2, Foreground)]);
        run(&mut throttle, start, &[1], 5_000);
        let later = start + Duration::from_millis(5_000);
        let granted = run(&mut throttle, later, &[1, 2], 2_000);
        assert!(is_about(granted[&1], granted[&2]), "{granted:?}");
    }

    #[test]
    fn the_background_gets_what_the_foreground_leaves() {
        let (mut throttle, start) = throttle(&[(1, Background), (2, Background), (3, Foreground)]);
        let granted = run(&mut throttle, start, &[1, 2, 3], 1_000);
        // What is left of a burst, because one connection cannot read twice at once.
        let ahead =
            |granted: &HashMap<FlowId, u64>, of: &[FlowId]| of.iter().filter_map(|id| granted.get(id)).sum::<u64>();
        assert!(ahead(&granted, &[1, 2]) <= RATE / 10 && is_about(granted[&3], RATE), "{granted:?}");
        let later = start + Duration::from_millis(1_000);
        let granted = run(&mut throttle, later, &[1, 2], 1_000);
        assert!(is_about(granted[&1], granted[&2]) && is_about(granted[&1], RATE / 2), "{granted:?}");
        // A client that joins makes it foreground.
        throttle.raise(2);
        let later = start + Duration::from_millis(2_000);
        let granted = run(&mut throttle, later, &[1, 2, 3], 1_000);
        assert!(ahead(&granted, &[1]) <= RATE / 10 && is_about(granted[&2], granted[&3]), "{granted:?}");
    }

    #[test]
    fn one_read_larger_than_the_bucket_is_paid_off_before_the_next() {
        let (mut throttle, start) = throttle(&[(1, Foreground)]);
        let ticket = throttle.enter(1, RATE);
        assert_eq!(throttle.settle(start), [ticket]);
        throttle.enter(1, 1);
        assert_eq!(throttle.settle(start + Duration::from_millis(899)), [0; 0]);
        assert!(throttle.pause() <= Duration::from_millis(2));
        assert_eq!(throttle.settle(start + Duration::from_millis(902)).len(), 1);
    }

    #[test]
    fn small_answers_do_not_wait_but_count() {
        let (mut throttle, start) = throttle(&[(1, Foreground)]);
        throttle.spend(RATE, start);
        let ticket = throttle.enter(1, 1);
        assert_eq!(throttle.settle(start), [0; 0]);
        assert_eq!(throttle.next(), Some(ticket));
        assert_eq!(throttle.settle(start + throttle.pause()), [ticket]);
    }

    #[test]
    fn who_leaves_costs_nothing() {
        let (mut throttle, start) = throttle(&[(1, Foreground), (2, Foreground)]);
        throttle.spend(RATE, start);
        let (gone, stays) = (throttle.enter(1, RATE), throttle.enter(2, 1));
        assert!(throttle.leave(1, gone) && !throttle.leave(1, gone));
        assert_eq!(throttle.settle(start + Duration::from_secs(1)), [stays]);
        throttle.enter(2, 1);
        throttle.close(2);
        assert_eq!(throttle.next(), None);
    }
}
