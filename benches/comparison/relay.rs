//! The line to the upstream: a TCP relay of fixed speed that counts what comes down it, and can become a black hole.
//!
//! Speed is measured downwards only; requests go up as fast as they come. A mirror's own receive buffer lies behind the
//! line, as it does in life.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Bytes that are let through at a time: small beside what a second carries, so that connections share fairly.
const PIECE: usize = 32 << 10;
/// How much of an idle line is made up for; hides that sleeping is never exact.
const BURST: Duration = Duration::from_millis(10);

/// How fast a line is, in bytes per second.
#[derive(Clone, Copy)]
pub struct Line {
    /// All connections together.
    pub total: f64,
    /// Each connection.
    pub each: Option<f64>,
}

/// A running relay. Dropped, it takes no more connections.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    line: Mutex<Line>,
    total: Bucket,
    bytes: AtomicU64,
    black_hole: AtomicBool,
    ended: AtomicBool,
}

/// A token bucket, kept as the time at which the line is free again.
struct Bucket(Mutex<Instant>);

impl Bucket {
    fn new() -> Bucket {
        Bucket(Mutex::new(Instant::now()))
    }

    /// Waits until `bytes` have gone through at this speed.
    fn pass(&self, bytes: usize, speed: f64) {
        let now = Instant::now();
        let until = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            *free = (*free).max(earliest) + Duration::from_secs_f64(bytes as f64 / speed);
            *free
        };
        thread::sleep(until.saturating_duration_since(now));
    }
}

impl Relay {
    /// A relay on `address` to `target`.
    pub fn start(address: SocketAddr, target: SocketAddr, line: Line) -> Outcome<Relay> {
        let listener = TcpListener::bind(address)?;
        let shared = Arc::new(Shared {
            target,
            line: Mutex::new(line),
            total: Bucket::new(),
            bytes: AtomicU64::new(0),
            black_hole: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let (address, accepting) = (listener.local_addr()?, Arc::clone(&shared));
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), shared) = (client, Arc::clone(&accepting)) else { continue };
                thread::spawn(move || shared.carry(&client));
            }
        });
        Ok(Relay { address, shared })
    }

    /// The speed from now on; connections that are open keep theirs.
    pub fn set_line(&self, line: Line) {
        *self.shared.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    /// Whether everything is accepted and nothing answered, on open connections, too.
    pub fn set_black_hole(&self, black_hole: bool) {
        self.shared.black_hole.store(black_hole, Ordering::SeqCst);
    }

    /// All bytes that came down the line.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Waits until nothing comes down the line any more, at most a minute, and gives what came in all.
    pub fn settle(&self) -> u64 {
        let (pause, mut before) = (Duration::from_millis(150), self.bytes());
        for _ in 0..400 {
            thread::sleep(pause);
            let now = self.bytes();
            if now == before {
                break;
            }
            before = now;
        }
        before
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn carry(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let line = *self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        thread::scope(|scope| {
            scope.spawn(|| self.up(client, &server));
            self.down(&server, client, line);
        });
    }

    fn up(&self, mut client: &TcpStream, mut server: &TcpStream) {
        let mut buffer = vec![0; PIECE];
        while let Some(n) = some(client.read(&mut buffer)) {
            if !self.black_hole.load(Ordering::SeqCst) && server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // Clients of registries close when they want no more: what is still on its way is of no use to them.
        let _ = server.shutdown(Shutdown::Both);
    }

    fn down(&self, mut server: &TcpStream, mut client: &TcpStream, line: Line) {
        let (own, mut buffer) = (Bucket::new(), vec![0; PIECE]);
        while let Some(n) = some(server.read(&mut buffer)) {
            if let Some(each) = line.each {
                own.pass(n, each);
            }
            self.total.pass(n, line.total);
            if self.black_hole.load(Ordering::SeqCst) {
                continue;
            }
            if client.write_all(&buffer[..n]).is_err() {
                break;
            }
            self.bytes.fetch_add(n as u64, Ordering::SeqCst);
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// The number of bytes read; `None` at the end, whichever it is.
fn some(read: io::Result<usize>) -> Option<usize> {
    read.ok().filter(|&n| n > 0)
}
