//! The way to the upstream: a TCP relay that can refuse, fall silent, or stop in the middle of a blob.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::scratch::private_address;

/// Bytes of each connection that come through a way that stalls: enough for any manifest, not for a large blob.
const BEFORE_STALL: usize = 1 << 20;

/// What happens to those who go this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Connections are refused, and those that there were are cut.
    Refused,
    /// Connections are accepted and nothing ever comes back.
    BlackHole,
    /// After [`BEFORE_STALL`] bytes nothing more comes, and the connection stays.
    Stalls,
}

/// A running relay; a test's process ends it.
pub(super) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    way: Mutex<Way>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// The way to `target`, open.
    pub(super) fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind(private_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let (way, open) = (Mutex::new(Way::Open), Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { target, way, changed: Condvar::new(), open });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.take(client);
            }
        });
        Relay { address, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everyone who is connected is cut off first: so none of them is a way around.
    pub(super) fn set(&self, way: Way) {
        *self.shared.way.lock().unwrap() = way;
        self.shared.changed.notify_all();
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn way(&self) -> Way {
        *self.way.lock().unwrap()
    }

    fn take(self: &Arc<Self>, client: TcpStream) {
        // A listener cannot stop listening and keep its port: closing at once, with a reset, is as near as it gets.
        if self.way() == Way::Refused {
            let _ = socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO));
            return;
        }
        self.open.lock().unwrap().push(client.try_clone().unwrap());
        let shared = self.clone();
        thread::spawn(move || {
            if shared.way() == Way::BlackHole {
                shared.until_it_changes(Way::BlackHole);
                return;
            }
            let Ok(server) = TcpStream::connect(shared.target) else { return };
            let (up, down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
            let other = shared.clone();
            thread::spawn(move || other.carry(up.0, up.1, usize::MAX));
            shared.carry(down.0, down.1, BEFORE_STALL);
        });
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, before_stall: usize) {
        let (mut buffer, mut carried) = (vec![0; 64 << 10], 0);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            carried += n;
            if carried > before_stall && self.way() == Way::Stalls {
                self.until_it_changes(Way::Stalls);
                break;
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn until_it_changes(&self, from: Way) {
        let way = self.way.lock().unwrap();
        drop(self.changed.wait_while(way, |way| *way == from).unwrap());
    }
}
