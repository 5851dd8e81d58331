//! One connection from its first byte to its last: which protocol it speaks, the handshake, HTTP, the end.
//!
//! Never looks into a request: the service does.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::body::RequestBody;
use super::canned;
use super::drain::Drain;
use super::file_sink::FileSink;
use super::limits::Limits;
use super::socket::Socket;
use super::tls::Tls;

/// The first byte of a TLS record that carries a handshake, and so of every ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;

/// What hyper keeps at most of one connection's input. More than the head needs: an upload is read in pieces of this size.
const READ_BUFFER: usize = 128 << 10;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from; an IPv4 address is one, on a socket of IPv6 too.
    pub address: SocketAddr,
    /// Whether nobody on the way can read along.
    pub tls: bool,
    /// Where an answer may put parts of files instead of their bytes, if its length is announced; none under TLS.
    pub files: Option<FileSink>,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// One side closed it between two answers, or it broke.
    Closed,
    /// It was still busy at the drain's deadline.
    Cut,
}

/// What the connections of one listener have in common.
pub struct Protocol<S> {
    http: http1::Builder,
    tls: Option<Tls>,
    limits: Limits,
    service: S,
    drain: Drain,
}

impl<S, F, B> Protocol<S>
where
    S: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    /// Requests go to `service`, until `drain` begins.
    pub fn new(limits: Limits, tls: Option<Tls>, service: S, drain: Drain) -> Protocol<S> {
        // Of the protocol's first version only: hyper's builder for both waits without a limit for the bytes that would tell
        // them apart.
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(limits.max_headers)
            .max_header_size(limits.max_header_bytes)
            .max_buf_size(READ_BUFFER.max(limits.max_header_bytes));
        Protocol { http, tls, limits, service, drain }
    }

    /// Serves one connection to its end.
    pub async fn speak(&self, socket: Socket, address: SocketAddr) -> End {
        tokio::select! {
            biased;
            () = self.handshake(socket, address) => End::Closed,
            () = self.drain.over() => End::Cut,
        }
    }

    async fn handshake(&self, mut socket: Socket, address: SocketAddr) {
        let patience = if self.tls.is_some() { self.limits.tls_timeout } else { self.limits.header_timeout };
        let deadline = Instant::now() + patience;
        let Some(first) = self.first_byte(&socket, deadline).await else { return };
        match &self.tls {
            None if first == TLS_HANDSHAKE => canned::SPEAKS_HTTP.say(socket).await,
            None => {
                let files = Some(socket.send_files());
                self.converse(socket, Peer { address, tls: false, files }).await;
            }
            Some(_) if first.is_ascii_alphabetic() => canned::SPEAKS_HTTPS.say(socket).await,
            Some(tls) => match timeout_at(deadline, tls.acceptor().accept(socket)).await {
                Ok(Ok(stream)) => self.converse(stream, Peer { address, tls: true, files: None }).await,
                Ok(Err(error)) => tracing::debug!(peer = %address, %error, "TLS handshake failed"),
                Err(_elapsed) => tracing::debug!(peer = %address, "TLS handshake took too long"),
            },
        }
    }

    /// None if there is none in time, or nobody wants one any more.
    async fn first_byte(&self, socket: &Socket, deadline: Instant) -> Option<u8> {
        tokio::select! {
            first = timeout_at(deadline, socket.first_byte()) => first.ok()?.ok()?,
            () = self.drain.last_call() => None,
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        let service = service_fn(|request: Request<Incoming>| {
            let request = request.map(|body| RequestBody::new(body, self.limits.body_timeout));
            let answer = (self.service)(request, peer.clone());
            async move {
                let mut answer = answer.await;
                if self.drain.has_begun() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.drain.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.address, error = &error as &dyn Error, "connection broke");
        }
    }
}
