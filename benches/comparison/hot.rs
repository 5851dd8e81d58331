//! What serving from the cache costs: bytes, requests, processor time and memory.
//!
//! Clients have the kernel throw bodies away unread: where one machine serves and loads at once, a client that copies
//! takes from the server what it needs itself. Over a network, too, the reader's copying is not the server's business.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::cold;
use crate::content::{Blob, Image};
use crate::http::{self, Connection, request};
use crate::relay::Relay;
use crate::servers::Server;

/// Connections of a client that asks for manifests, over [`MANIFEST_CLIENTS`] threads.
pub const MANIFEST_CONNECTIONS: usize = 16;
const MANIFEST_CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server did in a second, and what it took.
pub struct Rate {
    /// Bytes or requests per second.
    pub per_second: f64,
    /// Processor seconds for each.
    pub cpu: f64,
}

/// What the clients of one measurement share.
struct Load {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Counts, and says whether to go on.
    fn count(&self, units: u64) -> bool {
        self.done.fetch_add(units, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }

    /// Runs clients for a while, and looks at the server once they are at full speed, and once more at the end.
    fn measure(
        clients: usize,
        window: Duration,
        server: &Server,
        client: impl Fn(&Load) -> io::Result<()> + Sync,
    ) -> Outcome<Rate> {
        let load = Load { done: AtomicU64::new(0), stop: AtomicBool::new(false) };
        let look = || (Instant::now(), load.done.load(Ordering::Relaxed) as f64, server.process.cpu());
        thread::scope(|scope| {
            let work = || {
                let outcome = client(&load);
                load.stop.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            };
            let running: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
            thread::sleep(window / 4);
            let before = look();
            thread::sleep(window);
            let after = look();
            load.stop.store(true, Ordering::Relaxed);
            for client in running {
                client.join().map_err(|_| "a client panicked")??;
            }
            let (units, seconds) = (after.1 - before.1, (after.0 - before.0).as_secs_f64());
            if units == 0.0 {
                return Err("nothing was served".into());
            }
            Ok(Rate { per_second: units / seconds, cpu: (after.2 - before.2) / units })
        })
    }
}

/// How blobs are fetched.
#[derive(Clone, Copy)]
pub struct Fetching {
    /// Clients, each with one connection.
    pub connections: usize,
    /// For how long.
    pub window: Duration,
    /// Whether clients read what they get, instead of having the kernel throw it away.
    pub copying: bool,
}

/// Clients fetch a blob again and again; a unit is a byte.
pub fn blobs(server: &Server, blob: Blob, fetching: Fetching) -> Outcome<Rate> {
    let request = request("GET", server.address, &blob.path());
    Load::measure(fetching.connections, fetching.window, server, |load| {
        let mut connection = Connection::open(server.address, PATIENCE)?.copying(fetching.copying);
        let mut go_on = true;
        while go_on {
            connection.send(&request)?;
            let head = connection.head(false)?.success()?;
            connection.discard(head.length, |bytes| {
                go_on = load.count(bytes);
                go_on
            })?;
        }
        Ok(())
    })
}

/// Clients fetch a manifest again and again; a unit is a request. Each client has several connections, asks on all of
/// them, and then reads all answers, which costs it fewer changes of context than one thread for each would.
pub fn manifests(server: &Server, path: &str, window: Duration) -> Outcome<Rate> {
    let request = request("GET", server.address, path);
    Load::measure(MANIFEST_CLIENTS, window, server, |load| {
        let open = |_| Connection::open(server.address, PATIENCE);
        let mut connections =
            (0..MANIFEST_CONNECTIONS / MANIFEST_CLIENTS).map(open).collect::<io::Result<Vec<Connection>>>()?;
        let mut go_on = true;
        while go_on {
            for connection in &mut connections {
                connection.send(&request)?;
            }
            for connection in &mut connections {
                let head = connection.head(false)?.success()?;
                connection.read(head.length, |_| {})?;
                go_on = load.count(1);
            }
        }
        Ok(())
    })
}

/// The most memory that was resident while clients were fetching a blob, in bytes.
pub fn memory(server: &Server, blob: Blob, fetching: Fetching) -> Outcome<f64> {
    server.process.forget_peak()?;
    blobs(server, blob, fetching)?;
    Ok(server.process.peak())
}

/// Pulls an image through a mirror until it is there and comes without a byte from upstream, and checks it.
pub fn warm(address: SocketAddr, relay: &Relay, image: &Image) -> Outcome<()> {
    http::get(address, &image.by_tag(), PATIENCE, |_| {})?.success()?;
    http::get(address, &image.by_digest(), PATIENCE, |_| {})?.success()?;
    for &blob in &image.blobs {
        // The first time fetches, and some keep it only a while after.
        for _ in 0..5 {
            let before = relay.settle();
            cold::verify(address, blob)?;
            if relay.settle() - before < blob.size {
                break;
            }
        }
    }
    Ok(())
}

/// How long the answer for a tag takes, in seconds, and its status. `None`: there was none within `patience`.
pub fn tag(address: SocketAddr, image: &Image, patience: Duration) -> Outcome<Option<(f64, u16)>> {
    let start = Instant::now();
    match http::get(address, &image.by_tag(), patience, |_| {}) {
        Ok(head) => Ok(Some((start.elapsed().as_secs_f64(), head.status))),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
