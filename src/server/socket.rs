//! A client's socket that does not wait for ever: it fails when the client takes nothing, and it closes in a way that
//! lets the last answer arrive. Never knows what the bytes mean: it lies under TLS as under HTTP. Without TLS it sends
//! parts of files in the place of the bytes that stand for them.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::file_sink::{FileSink, is_stand_in};

/// How much the kernel takes from us beyond what the client's window has room for. Without a bound it took almost 4 MiB for
/// a client that reads nothing: a few hundred of them used up the memory that all connections of the machine share. With
/// this one it is a tenth of that, throughput is the same, and a slow client's progress shows early.
const UNSENT: u32 = 128 << 10;

/// More comes at once; and a client that has gone is an error, not a signal.
const HEAD_OF_FILE: SendFlags = SendFlags::MORE.union(SendFlags::NOSIGNAL);

/// One client's socket.
pub struct Socket {
    stream: TcpStream,
    files: Option<FileSink>,
    write_timeout: Duration,
    /// Made by the first write that has to wait, and reset by every later one: a write that goes through costs no timer.
    patience: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    linger_timeout: Duration,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// A socket whose writes fail after `write_timeout` without progress. Shut down, it reads on for up to
    /// `linger_timeout`.
    pub fn new(stream: TcpStream, write_timeout: Duration, linger_timeout: Duration) -> Socket {
        // Only a connection that is broken already refuses these, and that shows soon enough.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Socket { stream, files: None, write_timeout, patience: None, waiting: false, linger_timeout, linger: None }
    }

    /// From here on, where parts of files are lined up to be sent. For a connection without TLS: under TLS nothing could
    /// be found in the place of the bytes that stand for them.
    pub fn send_files(&mut self) -> FileSink {
        self.files.get_or_insert_default().clone()
    }

    /// The first byte that the client sends, left where it is; none if it closes instead.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let seen = self.stream.peek(&mut first).await?;
        Ok((seen > 0).then_some(first[0]))
    }

    /// Passes on what a write came to, unless it has been pending for too long.
    fn progress<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.write_timeout)));
        if !self.waiting {
            patience.as_mut().reset(Instant::now() + self.write_timeout);
            self.waiting = true;
        }
        ready!(patience.as_mut().poll(cx));
        // Without this the kernel would keep what is unsent, and go on offering it, for minutes after the close.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what is sent to it")))
    }

    /// Throws away what the client still sends, until it closes or time is up. A close with unread bytes is a reset, and a
    /// reset can destroy an answer that the client has not read yet.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.linger_timeout)));
        // Asked first: a client that never stops to send would use up the task's budget in the loop each time.
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut *self;
        let written = match &socket.files {
            None => Pin::new(&mut socket.stream).poll_write_vectored(cx, slices),
            Some(files) => poll_send(&mut socket.stream, files, cx, slices),
        };
        self.progress(cx, written)
    }

    /// hyper copies what it is given for a writer that is not: a stand-in would become its own bytes.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

/// Sends what comes first: bytes up to a stand-in, or what that stands for.
fn poll_send(
    stream: &mut TcpStream,
    files: &FileSink,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let Some(first) = slices.iter().position(|slice| !slice.is_empty()) else { return Poll::Ready(Ok(0)) };
    let slices = &slices[first..];
    let bytes = slices.iter().take_while(|slice| !is_stand_in(slice)).count();
    if bytes > 0 {
        files.pass()?;
    }
    if bytes == slices.len() {
        return Pin::new(stream).poll_write_vectored(cx, slices);
    }
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let sent = stream.try_io(Interest::WRITABLE, || match bytes {
            0 => files.send(&slices[0], &*stream),
            // An answer's head waits for the file, instead of going ahead in a packet of its own.
            _ => Ok(sendmsg(&*stream, &slices[..bytes], &mut SendAncillaryBuffer::default(), HEAD_OF_FILE)?),
        });
        match sent {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            sent => return Poll::Ready(sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_takes_no_more_than_it_is_told_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = Socket::new(stream, Duration::MAX, Duration::MAX);
        assert_eq!(SockRef::from(&socket.stream).tcp_notsent_lowat().unwrap(), UNSENT);
        assert!(socket.stream.nodelay().unwrap());
    }
}
