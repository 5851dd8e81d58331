//! A minimal HTTP/1.1 client that shows exactly what was on the wire, and whether it was all of it.
//!
//! Never follows a redirect, never adds a header but `Host` and `Content-Length`, never decodes anything but chunks.
//! No wait lasts longer than [`PATIENCE`]: a test fails then, rather than hang.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longer than anything takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Room for what one read brings, in bytes.
const READ: usize = 16 << 10;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; 0 when the connection ended before there was one.
    pub status: u16,
    /// Names in lower case, in the order of the wire, repeated ones repeated.
    pub headers: Vec<(String, String)>,
    /// The body as far as it came, without chunk framing.
    pub body: Vec<u8>,
    /// Whether all of the body came: `Content-Length` bytes, or the last chunk.
    pub complete: bool,
    /// Whether the connection ended with a reset, and not with an orderly end.
    pub reset: bool,
    /// Statuses of the 1xx answers before this one.
    pub informational: Vec<u16>,
}

impl Answer {
    /// The one value of a header. Panics when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "several {name}: {:?}", self.headers);
        first
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    /// A request of any method.
    pub fn new(method: &str, path: &str) -> Call {
        Call { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    pub fn get(path: &str) -> Call {
        Call::new("GET", path)
    }

    /// A HEAD.
    pub fn head(path: &str) -> Call {
        Call::new("HEAD", path)
    }

    /// Adds a header; `Host` and `Content-Length` given here replace the client's own.
    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The request's body.
    pub fn body(mut self, body: &[u8]) -> Call {
        self.body = body.into();
        self
    }

    /// The same for something below a path.
    pub fn below(&self, path: &str) -> Call {
        Call { path: format!("{path}{}", self.path), ..self.clone() }
    }

    /// Whether its path begins like this.
    pub fn names(&self, path: &str) -> bool {
        self.path.starts_with(path)
    }

    /// Sends it on a connection of its own, over plain HTTP.
    pub async fn send(&self, addr: SocketAddr) -> Answer {
        Connection::open(addr).await.unwrap().call(self).await
    }

    /// Sends it on a connection of its own, over plain HTTP, and reads no more than the head of the answer.
    pub async fn open(&self, addr: SocketAddr) -> Reading {
        Connection::open(addr).await.unwrap().start(self).await
    }

    fn encode(&self, host: &str) -> Vec<u8> {
        let given = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !given("host") {
            text += &format!("Host: {host}\r\n");
        }
        let framed = given("content-length") || given("transfer-encoding");
        if !framed && (!self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST" | "PATCH")) {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = format!("{text}\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// GETs `path` on a connection of its own.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    Call::get(path).send(addr).await
}

/// HEADs `path` on a connection of its own.
pub async fn head(addr: SocketAddr, path: &str) -> Answer {
    Call::head(path).send(addr).await
}

/// Sends `bytes` as they are, and returns everything that comes back until the other side closes.
pub async fn send_raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(addr).await.unwrap();
    connection.write(bytes).await;
    while connection.fill().await.is_ok_and(|n| n > 0) {}
    connection.buffer
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection that can be used for several requests, one after the other.
pub struct Connection {
    io: Box<dyn Io>,
    host: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects over plain TCP.
    ///
    /// # Errors
    /// The address refuses.
    pub async fn open(addr: SocketAddr) -> io::Result<Connection> {
        let tcp = patiently(TcpStream::connect(addr)).await?;
        tcp.set_nodelay(true)?;
        Ok(Connection { io: Box::new(tcp), host: addr.to_string(), buffer: Vec::new() })
    }

    /// Connects over plain TCP as another client: from `ip`, of the loopback's many.
    ///
    /// # Errors
    /// The address refuses.
    pub async fn open_from(ip: IpAddr, addr: SocketAddr) -> io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(ip, 0))?;
        let tcp = patiently(socket.connect(addr)).await?;
        tcp.set_nodelay(true)?;
        Ok(Connection { io: Box::new(tcp), host: addr.to_string(), buffer: Vec::new() })
    }

    /// Connects over TLS to the server called `name`, trusting the authority in `ca_pem` and no other.
    ///
    /// # Errors
    /// The address refuses, or the handshake fails.
    pub async fn open_tls(addr: SocketAddr, name: &str, ca_pem: &str) -> io::Result<Connection> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tcp = patiently(TcpStream::connect(addr)).await?;
        tcp.set_nodelay(true)?;
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let tls = patiently(connector.connect(server, tcp)).await?;
        Ok(Connection { io: Box::new(tls), host: format!("{name}:{}", addr.port()), buffer: Vec::new() })
    }

    /// Sends a request and reads the whole answer.
    pub async fn call(&mut self, call: &Call) -> Answer {
        self.write(&call.encode(&self.host)).await;
        self.answer(call).await
    }

    /// Sends all requests at once, and then reads their answers.
    pub async fn pipeline(&mut self, calls: &[Call]) -> Vec<Answer> {
        let requests: Vec<u8> = calls.iter().flat_map(|call| call.encode(&self.host)).collect();
        self.write(&requests).await;
        let mut answers = Vec::new();
        for call in calls {
            answers.push(self.answer(call).await);
        }
        answers
    }

    async fn answer(&mut self, call: &Call) -> Answer {
        let (mut answer, mut framing) = self.head(call).await;
        while let Some(part) = self.part(&mut framing, usize::MAX, &mut answer.reset).await {
            answer.body.extend_from_slice(&part);
        }
        answer.complete = framing == Framing::Over;
        answer
    }

    /// Sends a request and reads the head of the answer.
    pub async fn start(mut self, call: &Call) -> Reading {
        self.write(&call.encode(&self.host)).await;
        let (answer, framing) = self.head(call).await;
        Reading { connection: self, answer, framing }
    }

    /// Sends bytes. That the other side has gone shows when reading.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = patiently(async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        })
        .await;
    }

    /// Says nothing more, and reads until the other side has closed.
    pub async fn until_closed(mut self) {
        while self.fill().await.is_ok_and(|n| n > 0) {}
    }

    async fn fill(&mut self) -> io::Result<usize> {
        // Else so much is read each time as an empty buffer grows by: 64 bytes.
        self.buffer.reserve(READ);
        patiently(self.io.read_buf(&mut self.buffer)).await
    }

    /// A line without its end; `None` when the connection ends first.
    async fn line(&mut self, reset: &mut bool) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            self.more(reset).await?;
        }
    }

    async fn more(&mut self, reset: &mut bool) -> Option<()> {
        match self.fill().await {
            Ok(0) => None,
            Ok(_) => Some(()),
            Err(error) => {
                *reset = error.kind() == io::ErrorKind::ConnectionReset;
                None
            }
        }
    }

    async fn head(&mut self, call: &Call) -> (Answer, Framing) {
        let mut answer = Answer::default();
        loop {
            let Some(first) = self.line(&mut answer.reset).await else { return (answer, Framing::Broken) };
            let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
            let status: u16 = status.unwrap_or_else(|| panic!("not a status line: {first:?}"));
            answer.headers.clear();
            loop {
                let Some(line) = self.line(&mut answer.reset).await else { return (answer, Framing::Broken) };
                let Some((name, value)) = line.split_once(':') else { break };
                answer.headers.push((name.to_ascii_lowercase(), value.trim().into()));
            }
            if !(100..200).contains(&status) {
                answer.status = status;
                let framing = Framing::of(&answer, &call.method);
                return (answer, framing);
            }
            answer.informational.push(status);
        }
    }

    /// The next part of a body, at most `most` bytes; `None` when the body is over or broken, as `framing` then tells.
    async fn part(&mut self, framing: &mut Framing, most: usize, reset: &mut bool) -> Option<Vec<u8>> {
        if let Framing::Chunks(0) = *framing {
            match self.line(reset).await.and_then(|line| u64::from_str_radix(&line, 16).ok()) {
                None => *framing = Framing::Broken,
                Some(0) => *framing = if self.line(reset).await.is_some() { Framing::Over } else { Framing::Broken },
                Some(size) => *framing = Framing::Chunks(size),
            }
        }
        let left = match *framing {
            Framing::Over | Framing::Broken => return None,
            Framing::Length(left) | Framing::Chunks(left) => usize::try_from(left).unwrap(),
            Framing::UntilClose => usize::MAX,
        };
        if self.buffer.is_empty() && self.more(reset).await.is_none() {
            let orderly = *framing == Framing::UntilClose && !*reset;
            *framing = if orderly { Framing::Over } else { Framing::Broken };
            return None;
        }
        let part: Vec<u8> = self.buffer.drain(..self.buffer.len().min(left).min(most)).collect();
        let left = (left - part.len()) as u64;
        *framing = match *framing {
            Framing::Length(_) if left == 0 => Framing::Over,
            Framing::Length(_) => Framing::Length(left),
            // Behind a chunk stands an empty line.
            Framing::Chunks(_) if left == 0 && self.line(reset).await.is_none() => Framing::Broken,
            Framing::Chunks(_) => Framing::Chunks(left),
            other => other,
        };
        Some(part)
    }
}

/// An answer whose body is read a piece at a time. Dropped, it closes the connection.
pub struct Reading {
    connection: Connection,
    answer: Answer,
    framing: Framing,
}

impl Reading {
    /// Status and headers; the body is empty.
    pub fn head(&self) -> &Answer {
        &self.answer
    }

    /// The next `n` bytes; fewer only when the body ends first.
    pub async fn read(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < n {
            let most = n - bytes.len();
            match self.connection.part(&mut self.framing, most, &mut self.answer.reset).await {
                Some(part) => bytes.extend_from_slice(&part),
                None => break,
            }
        }
        bytes
    }

    /// Everything that [`Reading::read`] has not returned yet.
    pub async fn rest(mut self) -> Answer {
        self.answer.body = self.read(usize::MAX).await;
        self.answer.complete = self.framing == Framing::Over;
        self.answer
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    Chunks(u64),
    UntilClose,
    Over,
    Broken,
}

impl Framing {
    fn of(answer: &Answer, method: &str) -> Framing {
        if method == "HEAD" || matches!(answer.status, 204 | 304) {
            return Framing::Over;
        }
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunks(0);
        }
        match answer.header("content-length").map(|length| length.parse().unwrap()) {
            Some(0) => Framing::Over,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    }
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("nothing happened for {PATIENCE:?}"))
}
