//! Who may have a connection: so many in all, so many for one client. Never looks at what a connection does.
//!
//! The map of clients holds one entry per client that is connected, so it is bounded by the seats.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::Notify;

/// The seats of one listener. Clones share them.
#[derive(Clone)]
pub struct Seats {
    room: Arc<Room>,
}

struct Room {
    seats: usize,
    seats_per_client: usize,
    taken: Mutex<Taken>,
    shown: IntGauge,
    emptied: Notify,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// The right to a connection, given back when dropped.
pub struct Seat {
    room: Arc<Room>,
    client: IpAddr,
}

impl Seats {
    /// `seats` in all, `seats_per_client` for each client; `shown` says how many are taken.
    pub fn new(seats: usize, seats_per_client: usize, shown: IntGauge) -> Seats {
        let room = Room { seats, seats_per_client, taken: Mutex::default(), shown, emptied: Notify::new() };
        Seats { room: Arc::new(room) }
    }

    /// A seat for this client, if there is one.
    pub fn take(&self, client: IpAddr) -> Option<Seat> {
        let client = counted_as(client);
        let mut taken = self.room.taken();
        let total = taken.total;
        let own = taken.by_client.entry(client).or_default();
        let refused = total >= self.room.seats || (*own >= self.room.seats_per_client && !client.is_loopback());
        if refused {
            if *own == 0 {
                taken.by_client.remove(&client);
            }
            return None;
        }
        *own += 1;
        taken.total += 1;
        self.room.shown.inc();
        Some(Seat { room: self.room.clone(), client })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.room.taken().total
    }

    /// Waits until nobody sits.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.room.emptied.notified();
            if self.taken() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Room {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.total -= 1;
        self.room.shown.dec();
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
        if taken.total == 0 {
            self.room.emptied.notify_waiters();
        }
    }
}

/// What counts as one client. Whoever has an IPv6 address has the other 2^64 of its network as well.
fn counted_as(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(seats: usize, per_client: usize) -> Seats {
        Seats::new(seats, per_client, IntGauge::new("seats", "taken").unwrap())
    }

    fn client(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_client_has_its_share_and_no_more() {
        let seats = seats(10, 2);
        let _first = seats.take(client("10.0.0.1")).unwrap();
        let second = seats.take(client("10.0.0.1")).unwrap();
        assert!(seats.take(client("10.0.0.1")).is_none());
        assert!(seats.take(client("10.0.0.2")).is_some());
        drop(second);
        assert!(seats.take(client("10.0.0.1")).is_some());
    }

    #[test]
    fn all_clients_together_have_no_more_than_there_is() {
        let seats = seats(2, 2);
        let sitting: Vec<Seat> = ["10.0.0.1", "10.0.0.2"].map(|one| seats.take(client(one)).unwrap()).into();
        assert!(seats.take(client("10.0.0.3")).is_none());
        assert_eq!((seats.taken(), seats.room.shown.get()), (2, 2));
        drop(sitting);
        assert_eq!((seats.taken(), seats.room.shown.get()), (0, 0));
        assert!(seats.room.taken().by_client.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_loopback_is_none() {
        let seats = seats(10, 1);
        let _seat = seats.take(client("2001:db8::1")).unwrap();
        assert!(seats.take(client("2001:db8::2")).is_none());
        assert!(seats.take(client("2001:db8:0:1::1")).is_some());
        let _local = [seats.take(client("127.0.0.1")).unwrap(), seats.take(client("127.0.0.1")).unwrap()];
        let _local = [seats.take(client("::1")).unwrap(), seats.take(client("::1")).unwrap()];
    }
}
