//! A client on one connection: HTTP/1.1 by hand, so that making load costs little, and discarding bytes nearly nothing.
//!
//! Knows only answers that announce their length, which is what registries send.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// What clients of registries say that they can read.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
/// Longest head of an answer that is read.
const MAX_HEAD: usize = 16 << 10;
/// Most bytes that one call reads or discards.
const CHUNK: usize = 256 << 10;
/// `recv(2)`: bytes of a TCP stream are thrown away by the kernel instead of being copied.
const MSG_TRUNC: i32 = 0x20;

/// One connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    // Read and not yet consumed.
    unread: std::ops::Range<usize>,
    copies: bool,
}

/// Status and headers of an answer.
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The body's length.
    pub length: u64,
    text: String,
}

impl Head {
    /// A header's value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.text, name)
    }

    /// An answer that is not a success is an error, with its status.
    pub fn success(self) -> io::Result<Head> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(broken(format!("status {}", self.status))) }
    }
}

/// The text of a request without a body.
pub fn request(method: &str, host: SocketAddr, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {ACCEPT}\r\nUser-Agent: comparison\r\n\r\n")
        .into_bytes()
}

impl Connection {
    /// Connects; every later wait is limited by `patience`.
    pub fn open(address: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; CHUNK], unread: 0..0, copies: false })
    }

    /// The same, but what is thrown away is read first, as a client does that wants it.
    pub fn copying(self, copies: bool) -> Connection {
        Connection { copies, ..self }
    }

    /// Sends a whole request.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Sends a request with a body.
    pub fn send_with(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> io::Result<()> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: upstream\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)
    }

    /// Reads the next answer's head; `bodiless` after a `HEAD` request.
    pub fn head(&mut self, bodiless: bool) -> io::Result<Head> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let mut seen = 0;
        let end = loop {
            let bytes = &self.buffer[..self.unread.end];
            if let Some(at) = bytes[seen..].windows(4).position(|four| four == b"\r\n\r\n") {
                break seen + at + 4;
            }
            seen = bytes.len().saturating_sub(3);
            if bytes.len() > MAX_HEAD {
                return Err(broken("an endless head"));
            }
            self.fill()?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.unread.start = end;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| broken("no status"))?;
        let length = if bodiless || status == 204 {
            0
        } else {
            let length = header(&text, "content-length").and_then(|value| value.parse().ok());
            length.ok_or_else(|| broken("an answer without Content-Length"))?
        };
        Ok(Head { status, length, text })
    }

    /// Shows `length` bytes of body, piece by piece.
    pub fn read(&mut self, length: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.unread.is_empty() {
                self.unread = 0..0;
                self.fill()?;
            }
            let piece = self.unread.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            each(&self.buffer[self.unread.start..self.unread.start + piece]);
            self.unread.start += piece;
            left -= piece as u64;
        }
        Ok(())
    }

    /// Throws `length` bytes of body away, and tells of each piece how long it was; until `each` has had enough, which
    /// leaves the connection in the middle of a body.
    pub fn discard(&mut self, length: u64, mut each: impl FnMut(u64) -> bool) -> io::Result<()> {
        let here = (self.unread.len() as u64).min(length);
        self.unread.start += here as usize;
        let mut left = length - here;
        if here > 0 && !each(here) {
            return Ok(());
        }
        // Never written to: the kernel only looks at its length.
        let mut target: Vec<u8> = Vec::with_capacity(CHUNK);
        let socket = SockRef::from(&self.stream);
        while left > 0 {
            let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let gone = if self.copies {
                (&self.stream).read(&mut self.buffer[..most])?
            } else {
                socket.recv_with_flags(&mut target.spare_capacity_mut()[..most], MSG_TRUNC)?
            };
            if gone == 0 {
                return Err(broken(format!("the body ended {left} bytes early")));
            }
            left -= gone as u64;
            if !each(gone as u64) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        let read = self.stream.read(&mut self.buffer[self.unread.end..])?;
        if read == 0 {
            return Err(broken("the connection was closed"));
        }
        self.unread.end += read;
        Ok(())
    }
}

/// One request on a connection of its own; its body is shown to `each`.
pub fn get(address: SocketAddr, path: &str, patience: Duration, each: impl FnMut(&[u8])) -> io::Result<Head> {
    let mut connection = Connection::open(address, patience)?;
    connection.send(&request("GET", address, path))?;
    let head = connection.head(false)?;
    connection.read(head.length, each)?;
    Ok(head)
}

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}
