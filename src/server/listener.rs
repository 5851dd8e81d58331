//! One address: binding it, accepting on it, and the order in which it comes to an end.
//!
//! Never stops accepting for an error, and never waits for a client: each has a task of its own.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Body;
use hyper::{Request, Response};
use rustix::process::{Resource, getrlimit};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::body::RequestBody;
use super::canned;
use super::complaint::Complaint;
use super::connection::{End, Peer, Protocol};
use super::drain::Drain;
use super::limits::Limits;
use super::metrics::Metrics;
use super::seats::Seats;
use super::socket::Socket;
use super::tls::{Tls, TlsError, TlsFiles};
use crate::task;

/// Connections that the kernel may hold for us. Docker's classic store opens one per request, hundreds at a time.
const BACKLOG: u32 = 4096;

/// Clients that are being told that there is no seat; beyond these, nobody is told.
const TURNED_AWAY: usize = 256;

/// How long nothing is accepted when the process has no file descriptor left for it.
const PAUSE: Duration = Duration::from_millis(50);

/// How long after the deadline a connection may take to notice it.
const CUTTING: Duration = Duration::from_secs(1);

/// What a listener is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it is called in metrics, logs and the configuration: mirror, registry or admin.
    pub name: &'static str,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Absent: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// What it grants.
    pub limits: Limits,
}

/// Why there is no listener.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address is not to be had.
    #[error("{name}: cannot listen on {listen}: {source}; {advice}")]
    Listen {
        /// The listener's name.
        name: &'static str,
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
        /// What to do about it.
        advice: String,
    },
    /// The certificate is no good.
    #[error("{name}: {source}")]
    Tls {
        /// The listener's name.
        name: &'static str,
        /// What is wrong with it.
        source: TlsError,
    },
}

/// A bound address at which nobody is served yet. From here on the kernel queues clients for it.
pub struct Listener {
    name: &'static str,
    address: SocketAddr,
    socket: TcpListener,
    tls: Option<Tls>,
    limits: Limits,
    seats: Seats,
    turned_away: Arc<Semaphore>,
    full: Complaint,
    failing: Complaint,
    cut: Arc<AtomicUsize>,
}

impl Listener {
    /// Binds the address and reads the certificate.
    ///
    /// # Errors
    /// The address is not to be had, or the certificate is no good; the message says what to do.
    pub async fn bind(settings: Settings, metrics: &Metrics) -> Result<Listener, BindError> {
        let Settings { name, listen, tls, mut limits } = settings;
        let tls = match tls {
            Some(files) => {
                let (expiry, refused) = (metrics.certificate_expiry(name), metrics.certificates_refused(name));
                let loaded = task::blocking(move || Tls::load(files, expiry, refused)).await;
                Some(loaded.map_err(|source| BindError::Tls { name, source })?)
            }
            None => None,
        };
        let (socket, address) = open(listen).map_err(|source| {
            let advice = advice(name, listen, &source);
            BindError::Listen { name, listen, source, advice }
        })?;
        let affordable = affordable(limits.max_connections);
        if affordable < limits.max_connections {
            tracing::warn!(
                listener = name,
                connections = affordable,
                "fewer connections than configured: raise nofile"
            );
            limits.max_connections = affordable;
        }
        let seats = Seats::new(limits.max_connections, limits.max_connections_per_client, metrics.connections(name));
        Ok(Listener {
            name,
            address,
            socket,
            tls,
            limits,
            seats,
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            full: Complaint::default(),
            failing: Complaint::default(),
            cut: Arc::default(),
        })
    }

    /// The address, with the port that the system chose if it was asked for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers every request by `service`, until `drain` has begun and every connection is over. Says how many of them
    /// were not, and were cut.
    pub async fn serve<S, F, B>(self, service: S, drain: Drain) -> usize
    where
        S: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let protocol = Arc::new(Protocol::new(self.limits.clone(), self.tls.clone(), service, drain.clone()));
        let admit = |stream, from| self.admit(stream, from, &protocol);
        tokio::select! {
            () = self.accept(&admit) => {}
            () = self.follow_certificate() => {}
            () = drain.last_call() => {}
        }
        let Listener { name, socket, seats, cut, .. } = self;
        drop(socket);
        tokio::select! {
            () = seats.emptied() => {}
            () = async { drain.over().await; tokio::time::sleep(CUTTING).await } => {}
        }
        let cut = cut.load(Ordering::SeqCst) + seats.taken();
        match cut {
            0 => tracing::info!(listener = name, "every connection came to its end"),
            _ => tracing::warn!(listener = name, connections = cut, "cut connections that were not done in time"),
        }
        cut
    }

    async fn accept(&self, admit: &impl Fn(TcpStream, SocketAddr)) {
        loop {
            match self.socket.accept().await {
                Ok((stream, from)) => admit(stream, from),
                // This client's trouble, not ours: there is no reason to let the next one wait.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    if self.failing.is_due() {
                        tracing::warn!(listener = self.name, %error, "cannot accept connections for the moment");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn follow_certificate(&self) {
        match &self.tls {
            Some(tls) => tls.follow_files(self.limits.certificate_poll).await,
            None => std::future::pending().await,
        }
    }

    fn admit<S, F, B>(&self, stream: TcpStream, from: SocketAddr, protocol: &Arc<Protocol<S>>)
    where
        S: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let socket = Socket::new(stream, self.limits.write_timeout, self.limits.linger_timeout);
        let address = SocketAddr::new(from.ip().to_canonical(), from.port());
        let Some(seat) = self.seats.take(address.ip()) else {
            return self.turn_away(socket, address);
        };
        let (protocol, cut) = (protocol.clone(), self.cut.clone());
        task::spawn("connection", async move {
            if protocol.speak(socket, address).await == End::Cut {
                cut.fetch_add(1, Ordering::SeqCst);
            }
            drop(seat);
        });
    }

    fn turn_away(&self, socket: Socket, from: SocketAddr) {
        if self.full.is_due() {
            tracing::warn!(listener = self.name, peer = %from, connections = self.seats.taken(), "too many connections");
        }
        // Before a handshake a TLS client could not read the answer.
        if self.tls.is_none()
            && let Ok(permit) = self.turned_away.clone().try_acquire_owned()
        {
            task::spawn("turned away", async move {
                canned::FULL.say(socket).await;
                drop(permit);
            });
        }
    }
}

fn open(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier run that are not quite over do not keep the port from us; another program still does.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn advice(name: &str, listen: SocketAddr, error: &io::Error) -> String {
    let port = listen.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is taken (`ss -ltnp 'sport = :{port}'` says by whom): stop that program, or choose another \
             `listen` in [{name}]"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "this machine does not have that address (`ip address` lists those it has): correct `listen` in [{name}]"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, or choose another `listen` in [{name}]"
        ),
        _ => format!("correct `listen` in [{name}]"),
    }
}

/// Of the files that the process may open, half are left for what connections ask for.
fn affordable(connections: usize) -> usize {
    match getrlimit(Resource::Nofile).current {
        Some(files) => connections.min(usize::try_from(files / 2).unwrap_or(usize::MAX)),
        None => connections,
    }
}
