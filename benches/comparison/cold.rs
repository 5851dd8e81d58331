//! What a first pull is like: a herd on one layer, and one client on an image.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::oci::Hasher;

use crate::Outcome;
use crate::content::{Blob, Image};
use crate::http::{self, Connection, request};
use crate::relay::Relay;

/// Clients of the herd.
pub const HERD: usize = 16;
/// Layers that one client fetches at a time: what Docker does.
pub const AT_A_TIME: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// How a herd fared.
pub struct Herd {
    /// Bytes that came down the line, in sizes of the blob.
    pub sizes: f64,
    /// Until the last client had its first byte, in seconds.
    pub first_byte: f64,
    /// Until the last client had its last, in seconds.
    pub last_byte: f64,
}

/// `clients` ask `address` for a blob at the same moment.
pub fn herd(address: SocketAddr, relay: &Relay, blob: Blob, clients: usize) -> Outcome<Herd> {
    let (before, gate) = (relay.bytes(), Barrier::new(clients));
    let client = || -> Outcome<(Duration, Duration)> {
        let connection = Connection::open(address, PATIENCE);
        // Whoever fails before the gate still goes through it: the others wait there.
        gate.wait();
        let (mut connection, start) = (connection?, Instant::now());
        connection.send(&request("GET", address, &blob.path()))?;
        let length = connection.head(false)?.success()?.length;
        let mut first = None;
        connection.discard(length, |_| {
            first.get_or_insert_with(|| start.elapsed());
            true
        })?;
        if length != blob.size {
            return Err(format!("{length} bytes instead of {}", blob.size).into());
        }
        Ok((first.unwrap_or_default(), start.elapsed()))
    };
    let times: Vec<Outcome<(Duration, Duration)>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Err("a client panicked".into()))).collect()
    });
    let times = times.into_iter().collect::<Outcome<Vec<_>>>()?;
    // Some go on downloading for their store when the clients have it all.
    let sizes = (relay.settle() - before) as f64 / blob.size as f64;
    // Checked afterwards, because hashing sixteen streams would be what is measured.
    verify(address, blob)?;
    let latest = |of: fn(&(Duration, Duration)) -> Duration| times.iter().map(of).max().unwrap_or_default();
    Ok(Herd { sizes, first_byte: latest(|t| t.0).as_secs_f64(), last_byte: latest(|t| t.1).as_secs_f64() })
}

/// Reads a blob and checks what it is.
pub fn verify(address: SocketAddr, blob: Blob) -> Outcome<()> {
    fetch(&mut Connection::open(address, PATIENCE)?, address, blob)
}

/// Pulls an image as Docker does, and says how long it took, in seconds: what the tag means, its manifest, then config and
/// layers in their order, three at a time, each verified. Nothing is unpacked.
pub fn pull(address: SocketAddr, image: &Image) -> Outcome<f64> {
    let start = Instant::now();
    let mut connection = Connection::open(address, PATIENCE)?;
    connection.send(&request("HEAD", address, &image.by_tag()))?;
    connection.head(true)?.success()?;
    http::get(address, &image.by_digest(), PATIENCE, |_| {})?.success()?;
    let next = AtomicUsize::new(0);
    let client = || -> Outcome<()> {
        let mut connection = Connection::open(address, PATIENCE)?;
        while let Some(&blob) = image.blobs.get(next.fetch_add(1, Ordering::SeqCst)) {
            fetch(&mut connection, address, blob)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| Err("a client panicked".into())))
    })?;
    Ok(start.elapsed().as_secs_f64())
}

fn fetch(connection: &mut Connection, address: SocketAddr, blob: Blob) -> Outcome<()> {
    connection.send(&request("GET", address, &blob.path()))?;
    let length = connection.head(false)?.success()?.length;
    let mut hasher = Hasher::new(blob.digest.algorithm());
    connection.read(length, |piece| hasher.update(piece))?;
    if hasher.finish() == blob.digest { Ok(()) } else { Err(format!("{} has wrong bytes", blob.digest).into()) }
}
