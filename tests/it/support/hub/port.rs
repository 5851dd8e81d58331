//! One of the hub's listeners: it can refuse, fall silent, lose its certificate, and come back on the same port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::endpoint::Role;
use super::serve::{Shared, answer};
use super::wire::{Line, Socket, Wire};

/// What happens to those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// They are served.
    Open,
    /// They are refused; who was connected is cut off.
    Refusing,
    /// They can connect, nothing they send is answered, not even a TLS handshake; who was connected is cut off.
    Silent,
    /// They get a certificate that nobody trusts; who was connected is cut off.
    Untrusted,
}

/// TLS with the right certificate, and with one that nobody trusts.
#[derive(Clone)]
pub struct Certificates {
    /// The right one.
    pub trusted: TlsAcceptor,
    /// The other one.
    pub untrusted: TlsAcceptor,
}

/// A port that is the hub's for as long as the hub lives, whether it listens or not.
pub struct Port {
    role: Role,
    addr: SocketAddr,
    // Bound and never listening: while the port refuses, nobody else can be given it.
    _reserved: TcpSocket,
    certificates: Option<Certificates>,
    running: tokio::sync::Mutex<Option<Running>>,
    open: watch::Sender<usize>,
}

struct Running {
    // Dropped, it stops the task just as well.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Port {
    /// Reserves a port; it refuses until [`Port::set`] says otherwise.
    pub fn reserve(role: Role, ip: IpAddr, certificates: Option<Certificates>) -> Port {
        let reserved = bind(SocketAddr::new(ip, 0));
        let addr = reserved.local_addr().unwrap();
        Port { role, addr, _reserved: reserved, certificates, running: Default::default(), open: Default::default() }
    }

    /// Which host it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections are open, now and later.
    pub fn open(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }

    /// Changes the state; everything that was connected has been cut off when this returns.
    pub async fn set(&self, state: PortState, shared: &Arc<Shared>) {
        let mut running = self.running.lock().await;
        if let Some(Running { stop, task }) = running.take() {
            let _ = stop.send(());
            task.await.unwrap();
        }
        if state == PortState::Refusing {
            return;
        }
        let tls = self.certificates.clone().map(|both| match state {
            PortState::Untrusted => both.untrusted,
            _ => both.trusted,
        });
        assert!(state != PortState::Untrusted || tls.is_some(), "a plain hub has no certificate");
        let guest = Guest { role: self.role, state, tls, shared: shared.clone(), open: self.open.clone() };
        let listener = bind(self.addr).listen(1024).unwrap();
        let (stop, stopped) = oneshot::channel();
        *running = Some(Running { stop, task: tokio::spawn(accept(listener, guest, stopped)) });
    }
}

fn bind(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket
}

async fn accept(listener: TcpListener, guest: Guest, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(guest.clone().stay(tcp));
                }
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// What one connection needs.
#[derive(Clone)]
struct Guest {
    role: Role,
    state: PortState,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    open: watch::Sender<usize>,
}

impl Guest {
    async fn stay(self, mut tcp: TcpStream) {
        let _counted = Counted::new(self.open.clone());
        let _ = tcp.set_nodelay(true);
        if self.state == PortState::Silent {
            let mut sink = [0; 4096];
            while tcp.read(&mut sink).await.is_ok_and(|n| n > 0) {}
            return;
        }
        match &self.tls {
            None => self.talk(tcp).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(tcp).await {
                    self.talk(stream).await;
                }
            }
        }
    }

    async fn talk(&self, socket: impl Socket) {
        let line = Line::new(self.shared.next_connection());
        let wire = TokioIo::new(Wire::new(socket, line.clone()));
        let service = service_fn(|request| answer(self.shared.clone(), self.role, line.clone(), request));
        // It fails when a fault says so, or when the other side leaves.
        let _ = http1::Builder::new().serve_connection(wire, service).await;
    }
}

struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(open: watch::Sender<usize>) -> Counted {
        open.send_modify(|open| *open += 1);
        Counted(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
