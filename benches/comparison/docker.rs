//! A real dockerd that pulls: with a root of its own, beside any other of the machine. Its time includes unpacking, into
//! memory where there is a place for it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Outcome;
use crate::content::Image;
use crate::process::{Process, command};

/// What a pull needs, if it is here: root, and Debian's docker.io.
pub fn is_here() -> bool {
    rustix::process::geteuid().is_root()
        && ["dockerd", "docker"].iter().all(|program| {
            ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
                .iter()
                .any(|directory| Path::new(directory).join(program).exists())
        })
}

/// How long `docker pull` of an image takes from a mirror, or from the upstream in its place, in seconds.
pub fn pull(address: SocketAddr, image: &Image) -> Outcome<f64> {
    let daemon = Daemon::using(address)?;
    let start = Instant::now();
    let pulled = daemon.docker().args(["pull", "--quiet", &image.name()]).output()?;
    let seconds = start.elapsed().as_secs_f64();
    if !pulled.status.success() {
        return Err(String::from_utf8_lossy(&pulled.stderr).into_owned().into());
    }
    Ok(seconds)
}

struct Daemon {
    // Ended before its directory is removed.
    process: Option<Process>,
    home: TempDir,
}

impl Daemon {
    fn using(mirror: SocketAddr) -> Outcome<Daemon> {
        // Short on purpose: the path of a Unix socket has at most 107 bytes, and dockerd nests several of containerd's.
        // In memory if it may be: a disk that syncs what is unpacked would be measured instead of the line.
        let memory = Path::new("/dev/shm");
        let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let home = tempfile::Builder::new().prefix("larder-dockerd-").tempdir_in(within)?;
        let path = |name: &str| home.path().join(name);
        fs::write(path("daemon.json"), format!(r#"{{"registry-mirrors":["http://{mirror}"]}}"#))?;
        let mut dockerd = command("dockerd", home.path());
        // No way to the real Docker Hub: what arrives, came through the mirror.
        dockerd.env("HTTPS_PROXY", "http://127.0.0.1:9");
        dockerd.arg("--data-root").arg(path("root")).arg("--exec-root").arg(path("exec"));
        dockerd.arg("--pidfile").arg(path("pid")).arg("--config-file").arg(path("daemon.json"));
        dockerd.arg("--host").arg(format!("unix://{}", path("sock").display()));
        dockerd.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        let log = path("log");
        let ready = || fs::read_to_string(&log).is_ok_and(|log| log.contains("API listen on"));
        let process = Process::start(&mut dockerd, home.path(), ready);
        let mut daemon = Daemon { process: None, home };
        daemon.process = Some(process?);
        Ok(daemon)
    }

    fn docker(&self) -> Command {
        let mut docker = command("docker", self.home.path());
        docker.arg("--host").arg(format!("unix://{}", self.home.path().join("sock").display()));
        docker
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.process.take());
        for mount in mounts_below(self.home.path()) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
        // Whatever writes there last, writes for a moment more.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir_all(self.home.path()).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn mounts_below(home: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = places.filter(|place| place.starts_with(home)).collect();
    // The innermost first.
    below.reverse();
    below
}
