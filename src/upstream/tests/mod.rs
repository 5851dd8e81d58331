//! The room as a whole, over real sockets, against a peer that says whatever a test wants.

mod access;
mod hosts;
mod outage;
mod proxies;
mod transfer;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Account, Flow, Metrics, Priority, Proxies, Reach, Settings, Upstream};
use crate::clock::Clock;
use crate::oci::{Digest, Reference, RepoName};
use crate::secret::Secret;
use crate::task;

/// What the peer does with a request.
pub enum Reply {
    /// Answers, and waits for the next one.
    Say(String),
    /// Says so much, and closes the connection.
    Hang(String),
    /// Says so much, and then nothing.
    Stall(String),
    /// Answers after a while.
    Late(Duration, String),
}

/// A peer at a port of its own.
pub struct Peer {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// A peer that answers each request by `reply`, which is given its number and its head.
    pub async fn new(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Peer {
        Peer::start(None, reply).await
    }

    /// The same, behind TLS.
    pub async fn with_tls(config: ServerConfig, reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Peer {
        Peer::start(Some(TlsAcceptor::from(Arc::new(config))), reply).await
    }

    async fn start(tls: Option<TlsAcceptor>, reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads, reply) = (listener.local_addr().unwrap(), Arc::default(), Arc::new(reply));
        let peer = Peer { address, heads: Arc::clone(&heads) };
        task::spawn("peer", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, heads, reply) = (tls.clone(), heads.clone(), reply.clone());
                task::spawn("peer-connection", async move {
                    match tls {
                        None => converse(stream, heads, reply).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, heads, reply).await;
                            }
                        }
                    }
                });
            }
        });
        peer
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// How many requests had `text` in their heads.
    pub fn count(&self, text: &str) -> usize {
        self.heads().iter().filter(|head| head.contains(text)).count()
    }

    /// Its URL with `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Settings for an upstream that is this peer.
    pub fn settings(&self) -> Settings {
        Settings {
            name: "hub.test".parse().unwrap(),
            url: self.url("/").parse().unwrap(),
            fallbacks: Vec::new(),
            accounts: Vec::new(),
            reserve: 10,
            proxies: Proxies::default(),
            extra_ca: None,
            connect_timeout: Duration::from_secs(2),
            header_timeout: Duration::from_millis(400),
            stall_timeout: Duration::from_millis(400),
            max_connections: 4,
            parallel: 1,
            bandwidth: None,
        }
    }

    /// An upstream that is this peer.
    pub fn upstream(&self) -> Upstream {
        upstream(self.settings())
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: Arc<Mutex<Vec<String>>>,
    reply: Arc<impl Fn(usize, &str) -> Reply + Send + Sync>,
) {
    while let Some(head) = read_head(&mut stream).await {
        let number = {
            let mut heads = heads.lock().unwrap();
            heads.push(head.clone());
            heads.len() - 1
        };
        let (text, is_last) = match reply(number, &head) {
            Reply::Say(text) => (text, false),
            Reply::Hang(text) => (text, true),
            Reply::Late(wait, text) => {
                tokio::time::sleep(wait).await;
                (text, false)
            }
            Reply::Stall(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return pending().await;
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() || is_last {
            return;
        }
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    // Names of headers come in lower case from hyper, so tests can search for them.
    Some(String::from_utf8(head).unwrap())
}

/// An upstream on a clock of its own.
pub fn upstream(settings: Settings) -> Upstream {
    Upstream::new(settings, Clock::system(), Metrics::new(&prometheus::Registry::new())).unwrap()
}

/// An answer with `status`, header lines and a body, with its length.
pub fn answer(status: u16, lines: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{lines}\r\n{body}", body.len())
}

/// A 200 with a JSON body.
pub fn json(body: &str) -> String {
    answer(200, "content-type: application/json\r\n", body)
}

/// The account of tests.
pub fn account() -> Vec<Account> {
    vec![Account { username: "me".into(), password: Secret::new("hunter2") }]
}

/// A CA that has signed nothing, so that tests do not depend on the system's.
pub fn some_ca() -> Option<Vec<u8>> {
    Some(rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap().cert.pem().into())
}

/// `library/alpine`.
pub fn alpine() -> RepoName {
    "library/alpine".parse().unwrap()
}

/// `latest`.
pub fn latest() -> Reference {
    "latest".parse().unwrap()
}

/// Of what the tests' blobs contain.
pub fn digest() -> Digest {
    Digest::sha256(b"0123456789")
}

/// A client's, on a line without a limit.
pub fn flow() -> Flow {
    Flow::new(None, Priority::Foreground)
}
