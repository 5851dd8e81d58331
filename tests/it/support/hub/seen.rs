//! What the hub has been asked, and what it has answered. Never forgets a request until it is told to.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, Request};
use tokio::sync::watch;

use super::endpoint::{Endpoint, Role, Target};

/// A request, as it was when someone asked about it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which host it came to.
    pub role: Role,
    /// On which connection, counted from 1 over all hosts.
    pub connection: u64,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// What it is about.
    pub endpoint: Endpoint,
    /// All its headers.
    pub headers: HeaderMap,
    /// The answer's status; none before there is an answer.
    pub status: Option<u16>,
    /// Bytes of the body that have been handed to the connection.
    pub sent: u64,
    /// Whether the answer is over, by its end, by a fault, or because the other side has gone.
    pub over: bool,
}

impl Seen {
    /// The request as it comes in, before anything is answered.
    pub fn of<B>(role: Role, connection: u64, request: &Request<B>) -> Seen {
        // A plain hub has one port for both.
        let token = role == Role::Registry && request.uri().path() == "/token";
        let role = if token { Role::Token } else { role };
        Seen {
            role,
            connection,
            method: request.method().clone(),
            path: request.uri().path_and_query().map_or_else(|| "/".into(), |path| path.as_str().into()),
            endpoint: Endpoint::of(role, request.uri().path()),
            headers: request.headers().clone(),
            status: None,
            sent: 0,
            over: false,
        }
    }

    /// Whether it is of this kind.
    pub fn is(&self, target: Target) -> bool {
        target.covers(&self.method, &self.endpoint)
    }

    /// Whether it is for this tag or digest.
    pub fn is_for(&self, reference: impl ToString) -> bool {
        self.endpoint.reference() == Some(&reference.to_string())
    }

    /// The first value of a header.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        self.queries(name).into_iter().next()
    }

    /// All values of a parameter of the query, decoded.
    pub fn queries(&self, name: &str) -> Vec<String> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let decode = |value: &str| {
            percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8().unwrap().into_owned()
        };
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(value)).collect()
    }
}

#[derive(Default)]
struct Progress {
    status: AtomicU16,
    sent: AtomicU64,
    over: AtomicBool,
}

struct Entry {
    seen: Seen,
    progress: Arc<Progress>,
}

/// All requests, oldest first.
#[derive(Default)]
pub struct Log {
    entries: Mutex<Vec<Entry>>,
    changed: watch::Sender<u64>,
}

impl Log {
    /// Writes a request down.
    pub fn add(self: &Arc<Log>, seen: Seen) -> Ticket {
        let progress = Arc::<Progress>::default();
        self.entries.lock().unwrap().push(Entry { seen, progress: progress.clone() });
        self.changed.send_modify(|changes| *changes += 1);
        Ticket { log: self.clone(), progress }
    }

    /// A copy of what there is now.
    pub fn all(&self) -> Vec<Seen> {
        let entries = self.entries.lock().unwrap();
        entries.iter().map(Entry::now).collect()
    }

    /// Forgets what there is now.
    pub fn clear(&self) {
        self.entries.lock().unwrap().clear();
    }

    /// Sees every change from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Entry {
    fn now(&self) -> Seen {
        let status = self.progress.status.load(Ordering::SeqCst);
        Seen {
            status: (status != 0).then_some(status),
            sent: self.progress.sent.load(Ordering::SeqCst),
            over: self.progress.over.load(Ordering::SeqCst),
            ..self.seen.clone()
        }
    }
}

/// Follows one answer; dropped, it says that the answer is over.
pub struct Ticket {
    log: Arc<Log>,
    progress: Arc<Progress>,
}

impl Ticket {
    /// The answer begins.
    pub fn answered(&self, status: u16) {
        self.progress.status.store(status, Ordering::SeqCst);
        self.log.changed.send_modify(|changes| *changes += 1);
    }

    /// More of the body went out.
    pub fn sent(&self, bytes: u64) {
        self.progress.sent.fetch_add(bytes, Ordering::SeqCst);
        self.log.changed.send_modify(|changes| *changes += 1);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.progress.over.store(true, Ordering::SeqCst);
        self.log.changed.send_modify(|changes| *changes += 1);
    }
}
