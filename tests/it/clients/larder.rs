//! The real `larder` binary between the upstream and the clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::http;
use super::process::{Process, command};
use super::registry::Registry;
use super::scratch::{Scratch, private_address, wait_until};

/// A running mirror of one upstream.
pub(super) struct Larder {
    process: Process,
    mirror: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    home: Scratch,
}

impl Larder {
    pub(super) fn mirroring(upstream: &Registry) -> Self {
        // A tag may be served without asking for a second only: so a test that outlives it sees answers that were
        // confirmed by the upstream, and, when that is gone, answers that could not be.
        Self::mirroring_at(&upstream.url(), "tag_ttl = \"1s\"")
    }

    /// The same, with the address of the upstream or of what stands in front of it, and the lines of `[cache]`.
    pub(super) fn mirroring_at(upstream: &str, cache: &str) -> Self {
        let home = Scratch::new("mirror");
        let (mirror, admin) = (private_address(), private_address());
        let config = format!(
            "data_dir = {:?}\n\
             [mirror]\nlisten = \"{mirror}\"\n\
             [admin]\nlisten = \"{admin}\"\n\
             [cache]\n{cache}\n\
             [[upstream]]\nname = \"docker.io\"\nurl = \"{upstream}\"\n",
            home.join("data")
        );
        let config = home.write("larder.toml", &config);
        let process = serve(&config, admin, &home);
        Self { process, mirror, admin, config, home }
    }

    /// Ends the server and starts it on the same data, upstream or no upstream.
    pub(super) fn restart(&mut self) {
        self.process.stop();
        self.process = serve(&self.config, self.admin, &self.home);
    }

    /// Where clients pull.
    pub(super) fn mirror(&self) -> SocketAddr {
        self.mirror
    }

    pub(super) fn mirror_url(&self) -> String {
        format!("http://{}", self.mirror)
    }

    /// How many requests were answered with this outcome; any outcome if it is empty.
    pub(super) fn requests(&self, outcome: &str) -> u64 {
        self.metric("larder_requests_total{", &format!("outcome=\"{outcome}"))
    }

    /// Waits until so many blobs are being fetched.
    pub(super) fn until_fills(&self, n: u64) {
        wait_until("fills begin", Duration::from_secs(30), || self.metric("larder_fills_in_flight", "") >= n);
    }

    /// The sum of the series that begin with `name` and contain `label`.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let page = http::get(self.admin, "/metrics").unwrap();
        assert_eq!(page.status, 200);
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()).map(|count| count.parse::<u64>().unwrap()).sum()
    }
}

fn serve(config: &PathBuf, admin: SocketAddr, home: &Scratch) -> Process {
    let mut command = command(env!("CARGO_BIN_EXE_larder"), home.path());
    command.arg("serve").arg("--config").arg(config);
    let mut process = Process::spawn("larder", &mut command, home.join("log"));
    process.wait_until_ready(|_| http::get(admin, "/readyz").ok().filter(|answer| answer.status == 200));
    process
}
