//! Parts of files that a plain connection sends without reading them: the kernel moves the bytes (`sendfile`).
//!
//! hyper writes slices of bytes and knows nothing of files. So a body gives it *stand-ins*, slices of one static array,
//! and what each stands for waits in line here; the socket knows a stand-in by its address, and sends the part of the
//! file in its place. The bytes of a stand-in are never sent. Nothing here trusts hyper to keep the order: a stand-in
//! that is not the one in front, that begins or ends elsewhere, or that was dropped before its part had been sent breaks
//! the sink, and a broken sink sends nothing any more.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::sendfile;
use rustix::io::{Errno, pread, write};

/// Bytes that are read at a time where the file system leaves us no other way.
const COPIED: usize = 64 << 10;

/// What stand-ins are slices of.
static STAND_INS: [u8; FileSink::LONGEST] = [0; FileSink::LONGEST];

/// A part of a file.
pub struct Region {
    /// The file; held open until the part has been sent.
    pub file: Arc<dyn AsFd + Send + Sync>,
    /// Where the part begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: usize,
}

/// Where the bodies of one connection put the parts of files that it is to send. Clones share the line.
#[derive(Clone, Default)]
pub struct FileSink {
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    numbers: u64,
    broken: bool,
}

struct Waiting {
    number: u64,
    region: Region,
    sent: usize,
}

/// Keeps a stand-in's place in line.
struct StandIn {
    line: Arc<Mutex<Line>>,
    number: u64,
    bytes: &'static [u8],
}

impl FileSink {
    /// Bytes that a region has at most.
    pub const LONGEST: usize = 512 << 10;

    /// Puts a region in line. What comes back must go into a body as it is, at the region's place, and nowhere else.
    ///
    /// # Errors
    /// The region is empty, or longer than [`FileSink::LONGEST`].
    pub fn enqueue(&self, region: Region) -> io::Result<Bytes> {
        let bytes = STAND_INS.get(..region.length).filter(|bytes| !bytes.is_empty());
        let bytes =
            bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a region of an impossible length"))?;
        let mut line = lock(&self.line);
        let number = line.numbers;
        line.numbers += 1;
        line.waiting.push_back(Waiting { number, region, sent: 0 });
        drop(line);
        Ok(Bytes::from_owner(StandIn { line: self.line.clone(), number, bytes }))
    }

    /// Sends of the region in front what the socket has room for, if it is the one that `stand_in` stands for.
    ///
    /// # Errors
    /// It is not, the file ends before the region does, or the socket is full or broken.
    pub(super) fn send(&self, stand_in: &[u8], socket: impl AsFd) -> io::Result<usize> {
        let mut line = lock(&self.line);
        let intact = !line.broken;
        let Some(front) = line.waiting.front_mut().filter(|front| intact && front.is(stand_in)) else {
            line.broken = true;
            return Err(out_of_step());
        };
        let offset = front.region.offset + front.sent as u64;
        let sent = match sendfile(&socket, &front.region.file, Some(&mut { offset }), stand_in.len()) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                copy(socket, &front.region.file, offset, stand_in.len())
            }
            sent => sent,
        }?;
        front.sent += sent;
        if sent == 0 {
            line.broken = true;
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter while it was sent"));
        }
        if front.sent == front.region.length {
            line.waiting.pop_front();
        }
        Ok(sent)
    }

    /// Whether bytes that stand for themselves may be sent now.
    ///
    /// # Errors
    /// They may not: a region is half sent, or the sink is broken.
    pub(super) fn pass(&self) -> io::Result<()> {
        let line = lock(&self.line);
        let half_sent = line.waiting.front().is_some_and(|front| front.sent > 0);
        if line.broken || half_sent { Err(out_of_step()) } else { Ok(()) }
    }
}

impl fmt::Debug for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSink({} in line)", lock(&self.line).waiting.len())
    }
}

impl Waiting {
    /// Whether `stand_in` stands for exactly what is left of this.
    fn is(&self, stand_in: &[u8]) -> bool {
        std::ptr::eq(stand_in, &raw const STAND_INS[self.sent..self.region.length])
    }
}

impl AsRef<[u8]> for StandIn {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        // What is dropped early is missing on the wire. The files need not stay open for it.
        if line.waiting.iter().any(|waiting| waiting.number == self.number) {
            line.broken = true;
            line.waiting.clear();
        }
    }
}

/// Whether these bytes stand for others.
pub fn is_stand_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_INS.as_ptr_range().contains(&bytes.as_ptr())
}

/// For a file system that cannot send: rare, slow, and right.
fn copy(socket: impl AsFd, file: impl AsFd, offset: u64, length: usize) -> Result<usize, Errno> {
    let mut buffer = vec![0; length.min(COPIED)];
    let read = pread(file, &mut buffer, offset)?;
    if read == 0 { Ok(0) } else { write(socket, &buffer[..read]) }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

fn out_of_step() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what is written is not what was lined up to be sent")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn file(content: &[u8]) -> Arc<std::fs::File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    fn region(content: &[u8]) -> Region {
        Region { file: file(content), offset: 0, length: content.len() }
    }

    fn received(mut end: UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        end.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn a_stand_in_is_known_by_its_address_and_not_by_its_bytes() {
        let sink = FileSink::default();
        let stand_in = sink.enqueue(region(b"abc")).unwrap();
        assert!(is_stand_in(&stand_in) && is_stand_in(&stand_in[1..]) && is_stand_in(&STAND_INS));
        assert!(!is_stand_in(&[0; 3]) && !is_stand_in(&stand_in[..0]));
    }

    #[test]
    fn regions_are_sent_in_order_and_their_stand_ins_never() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sink = FileSink::default();
        let inner = Region { file: file(b"..second.."), offset: 2, length: 6 };
        let (first, second) = (sink.enqueue(region(b"first")).unwrap(), sink.enqueue(inner).unwrap());
        for stand_in in [first, second] {
            assert_eq!(sink.send(&stand_in, &ours).unwrap(), stand_in.len());
            drop(stand_in);
            sink.pass().unwrap();
        }
        drop(ours);
        assert_eq!(received(theirs), b"firstsecond");
        assert_eq!(format!("{sink:?}"), "FileSink(0 in line)");
    }

    #[test]
    fn no_stand_in_is_sent_as_content() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let broken_by = |wrong: &dyn Fn(&FileSink, Bytes, Bytes) -> io::Result<usize>| {
            let sink = FileSink::default();
            let (first, second) = (sink.enqueue(region(b"first")).unwrap(), sink.enqueue(region(b"other")).unwrap());
            assert_eq!(wrong(&sink, first, second).unwrap_err().kind(), io::ErrorKind::InvalidData);
            let later = sink.enqueue(region(b"later")).unwrap();
            assert!(sink.send(&later, &ours).is_err() && sink.pass().is_err(), "a broken sink sends nothing any more");
        };
        // Cut by whoever frames the body, at either end; dropped; not lined up here.
        broken_by(&|sink, first, _second| sink.send(&first[..4], &ours));
        broken_by(&|sink, first, _second| sink.send(&first[1..], &ours));
        broken_by(&|sink, first, second| {
            drop(first);
            sink.send(&second, &ours)
        });
        broken_by(&|sink, _first, _second| sink.send(&STAND_INS[..6], &ours));
        broken_by(&|sink, first, second| {
            assert_eq!(sink.send(&first, &ours).unwrap() + sink.send(&second, &ours).unwrap(), 10);
            sink.send(&second, &ours)
        });
        assert!(FileSink::default().send(&STAND_INS[..3], &ours).is_err());
        drop(ours);
        assert_eq!(received(theirs), b"firstother");
    }

    #[test]
    fn nothing_comes_between_the_halves_of_a_region() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let sink = FileSink::default();
        let stand_in = sink.enqueue(region(&vec![b'x'; FileSink::LONGEST])).unwrap();
        let sent = sink.send(&stand_in, &ours).unwrap();
        assert!(sent < stand_in.len(), "the socket took it all");
        assert_eq!(sink.send(&stand_in[sent..], &ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        sink.pass().unwrap_err();
        sink.send(&stand_in, &ours).unwrap_err();
        drop(theirs);
    }

    #[test]
    fn a_file_that_became_shorter_ends_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sink = FileSink::default();
        let stand_in = sink.enqueue(Region { file: file(b"short"), offset: 0, length: 9 }).unwrap();
        assert_eq!(sink.send(&stand_in, &ours).unwrap(), 5);
        assert_eq!(sink.send(&stand_in[5..], &ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(sink.send(&stand_in[5..], &ours).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(ours);
        assert_eq!(received(theirs), b"short");
    }

    #[test]
    fn what_cannot_be_sent_is_copied() {
        // The kernel does not send to a file that is appended to.
        let target = tempfile::NamedTempFile::new().unwrap();
        let appended = std::fs::File::options().append(true).open(target.path()).unwrap();
        let (sink, content) = (FileSink::default(), vec![b'x'; COPIED + 1]);
        let stand_in = sink.enqueue(Region { file: file(&content), offset: 0, length: COPIED + 1 }).unwrap();
        assert_eq!(sink.send(&stand_in, &appended).unwrap(), COPIED);
        assert_eq!(sink.send(&stand_in[COPIED..], &appended).unwrap(), 1);
        assert_eq!(std::fs::read(target.path()).unwrap(), content);
    }

    #[test]
    fn a_region_has_a_length_that_can_be_stood_for() {
        let sink = FileSink::default();
        for length in [0, FileSink::LONGEST + 1] {
            assert!(sink.enqueue(Region { length, ..region(b"x") }).is_err(), "{length}");
        }
        sink.pass().unwrap();
    }
}
