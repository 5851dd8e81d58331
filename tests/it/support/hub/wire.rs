//! The hub's end of one connection: it knows what has really been written, and can end with a reset.
//!
//! hyper throws away what it has not written yet when a body fails; a fault that promises "after n bytes" therefore
//! waits on [`Line::drained`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

/// A connection's strings; clones pull the same ones.
#[derive(Clone)]
pub struct Line(Arc<Strings>);

struct Strings {
    number: u64,
    asked: AtomicU64,
    drained: watch::Sender<u64>,
    reset: AtomicBool,
}

impl Line {
    /// For connection `number`.
    pub fn new(number: u64) -> Line {
        let drained = watch::Sender::new(0);
        Line(Arc::new(Strings { number, asked: AtomicU64::new(0), drained, reset: AtomicBool::new(false) }))
    }

    /// The connection's number.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Waits until everything that hyper has been given is written to the socket.
    pub async fn drained(&self) {
        let mine = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        // The sender lives as long as this line does.
        let _ = self.0.drained.subscribe().wait_for(|drained| *drained >= mine).await;
    }

    /// The connection's end will be a TCP reset.
    pub fn reset_when_closed(&self) {
        self.0.reset.store(true, Ordering::SeqCst);
    }
}

/// A stream that a TCP connection is at the bottom of.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The connection.
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What hyper reads and writes.
pub struct Wire<S: Socket> {
    socket: S,
    line: Line,
}

impl<S: Socket> Wire<S> {
    /// `socket`, with `line` attached.
    pub fn new(socket: S, line: Line) -> Wire<S> {
        Wire { socket, line }
    }
}

impl<S: Socket> Drop for Wire<S> {
    fn drop(&mut self) {
        if self.line.0.reset.load(Ordering::SeqCst) {
            let _ = self.socket.tcp().set_zero_linger();
        }
    }
}

impl<S: Socket> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper calls it when its own buffer is empty, and after every poll of a body.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        let asked = self.line.0.asked.load(Ordering::SeqCst);
        self.line.0.drained.send_if_modified(|drained| std::mem::replace(drained, asked) != asked);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
