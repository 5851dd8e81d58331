//! A temporary home for one program, and a loopback address of its own.
//!
//! What lives in it is gone when it is dropped: processes first, then mounts, then files. Nothing else is touched.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A directory that daemons may mount into and start processes from.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        // Short on purpose: a Unix socket's path has at most 107 bytes, and dockerd nests several of containerd's.
        let prefix = format!("lrdr-{name}-");
        // Follows TMPDIR, because overlay mounts cannot lie on an overlay: in a container it must name a volume.
        Self(tempfile::Builder::new().prefix(&prefix).tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Removes a directory of a stopped daemon, with whatever is still mounted below it.
    pub(super) fn remove(&self, name: &str) {
        let path = self.join(name);
        unmount_below(&path);
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_processes_naming(self.path());
        unmount_below(self.path());
    }
}

/// A free TCP port on a loopback address that nothing else on this machine uses.
///
/// Outgoing connections take their ports on 127.0.0.1. So a port that was free on an address of our own is still free
/// when the program that is told about it binds it, however many tests run beside this one.
pub(super) fn private_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = u8::try_from(1 + NEXT.fetch_add(1, Ordering::Relaxed) % 250).unwrap();
    // 127.0.x.y is avoided: Debian puts the host's own name on 127.0.1.1.
    let address = Ipv4Addr::new(127, 1 + high % 250, low, last);
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// This machine's address on a network, if it is in any.
pub(super) fn own_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent: the kernel only chooses the way there.
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    Some(socket.local_addr().unwrap().ip())
}

/// A free port at an address that no client takes for loopback, because Docker checks no certificate there.
pub(super) fn own_address() -> SocketAddr {
    let ip = own_ip().expect("no network but loopback, where Docker trusts everybody: give this machine one");
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// Waits for a condition, never for a length of time.
pub(super) fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends what outlived its daemon: a container's shim or monitor carries our unique directory in its arguments.
fn end_processes_naming(path: &Path) {
    let ours = path.to_str().unwrap().as_bytes();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let left: Vec<Pid> = processes_naming(ours);
        if left.is_empty() {
            return;
        }
        for pid in left {
            // It may have ended by itself since it was listed.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn processes_naming(needle: &[u8]) -> Vec<Pid> {
    let own = rustix::process::getpid();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != own)
        // A zombie's command line is empty, so what only waits to be reaped does not hold us up.
        .filter(|pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            line.windows(needle.len()).any(|part| part == needle)
        })
        .collect()
}

/// dockerd leaves its network namespace mounted when it stops, podman and containerd their overlay directories.
fn unmount_below(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(path)).collect();
    // Later mounts may lie on earlier ones.
    below.reverse();
    for point in below {
        let _ = Command::new("umount").arg("--lazy").arg(point).status();
    }
}
