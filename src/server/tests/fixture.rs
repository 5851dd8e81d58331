//! A listener with short limits and a service that does what the path says, and a client that is only a socket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response};
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Drain, Limits, Listener, Metrics, Peer, Region, RequestBody, Settings, TlsFiles};
use crate::task;

pub const CHUNK: usize = 64 << 10;

/// Less than any limit that is not a test's own, and longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A listener that is being served at.
pub struct Server {
    pub address: SocketAddr,
    pub drain: Drain,
    pub metrics: Metrics,
    pub served: JoinHandle<usize>,
}

/// Short, so that a test that waits for one of them is short too.
pub fn quick() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(400),
        tls_timeout: Duration::from_millis(400),
        write_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(400),
        linger_timeout: Duration::from_millis(200),
        certificate_poll: Duration::from_millis(20),
        ..Limits::default()
    }
}

impl Server {
    pub async fn start(limits: Limits) -> Server {
        Server::start_with(limits, None).await
    }

    pub async fn start_with(limits: Limits, tls: Option<TlsFiles>) -> Server {
        let metrics = Metrics::new(&Registry::new());
        let settings = Settings { name: "test", listen: "127.0.0.1:0".parse().unwrap(), tls, limits };
        let listener = Listener::bind(settings, &metrics).await.unwrap();
        let (address, drain) = (listener.local_addr(), Drain::new());
        let served = task::spawn("serve", listener.serve(answer, drain.clone()));
        Server { address, drain, metrics, served }
    }

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    pub fn connections(&self) -> i64 {
        self.metrics.connections("test").get()
    }

    /// Waits until so many connections are open: accepting takes a moment.
    pub async fn has_connections(&self, wanted: i64) {
        let all = until(|| self.connections() == wanted);
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{} connections", self.connections()));
    }

    /// Waits until so many new certificates were looked at and found to be no good.
    pub async fn has_refused(&self, wanted: u64) {
        let refused = self.metrics.certificates_refused("test");
        timeout(PATIENCE, until(|| refused.get() >= wanted))
            .await
            .unwrap_or_else(|_| panic!("{} refused", refused.get()));
    }
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// `/hello`, `/chunks/<n>` at once, `/files/<n>` as many sent from a file, `/liar/<n>` with one byte less announced,
/// `/ticks/<n>` with 50 ms between them, `/length` of the body, `/refuse` it unread.
async fn answer(request: Request<RequestBody>, peer: Peer) -> Answer {
    let path = request.uri().path().to_owned();
    let mut parts = path.split('/').skip(1);
    let (what, count) = (parts.next().unwrap(), parts.next().map_or(0, |count| count.parse().unwrap()));
    match what {
        "hello" => text(200, "hello"),
        "files" => files(count, count * CHUNK, peer),
        "liar" => files(count, count * CHUNK - 1, peer),
        "chunks" => Response::new(chunks(count, Duration::ZERO)),
        "ticks" => Response::new(chunks(count, Duration::from_millis(50))),
        "length" => match request.into_body().collect().await {
            Ok(body) => text(200, &body.to_bytes().len().to_string()),
            Err(error) => text(408, &error.to_string()),
        },
        _ => text(403, "refused"),
    }
}

fn text(status: u16, text: &str) -> Answer {
    Response::builder().status(status).body(Full::from(text.to_owned()).boxed_unsync()).unwrap()
}

fn chunks(count: usize, pause: Duration) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = stream::unfold(count, move |left| async move {
        sleep(pause).await;
        (left > 0).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; CHUNK]))), left - 1))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn files(count: usize, announced: usize, peer: Peer) -> Answer {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &vec![b'f'; CHUNK * count]).unwrap();
    let (file, sink) = (std::sync::Arc::new(file), peer.files.unwrap());
    let frames = stream::iter(0..count).map(move |number| {
        let region = Region { file: file.clone(), offset: (number * CHUNK) as u64, length: CHUNK };
        Ok(Frame::data(sink.enqueue(region).unwrap()))
    });
    Response::builder().header(CONTENT_LENGTH, announced).body(StreamBody::new(frames).boxed_unsync()).unwrap()
}

/// A client that says exactly what it is told to.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn get(&mut self, path: &str) {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    }

    /// What comes until the server closes, which it does before our patience ends, and how long that took.
    pub async fn rest(&mut self) -> (String, Duration) {
        let (start, mut rest) = (Instant::now(), Vec::new());
        timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("a close").expect("no reset");
        (String::from_utf8_lossy(&rest).into_owned(), start.elapsed())
    }

    /// What comes until it ends with these words.
    pub async fn until(&mut self, end: &str) -> String {
        let mut said = Vec::new();
        let all = async {
            while !said.ends_with(end.as_bytes()) {
                said.push(self.stream.read_u8().await.unwrap());
            }
        };
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("no {end:?}"));
        String::from_utf8_lossy(&said).into_owned()
    }
}
