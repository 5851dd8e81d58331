//! The real `larder` binary between the upstream and the clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::http;
use super::process::{Process, command};
use super::registry::Registry;
use super::scratch::{Scratch, private_address};

/// A running mirror of one upstream.
pub(super) struct Larder {
    process: Process,
    mirror: SocketAddr,
    registry: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    home: Scratch,
}

impl Larder {
    pub(super) fn mirroring(upstream: &Registry) -> Self {
        Self::hosting(upstream, None)
    }

    /// The same with a registry beside it; `rules` are more lines of `[registry]`.
    pub(super) fn hosting(upstream: &Registry, rules: Option<&str>) -> Self {
        let home = Scratch::new("mirror");
        let (mirror, admin, registry) = (private_address(), private_address(), private_address());
        let rules = rules.map(|rules| rules.replace("HOME", home.path().to_str().unwrap()));
        let hosted = rules.map(|rules| format!("[registry]\nlisten = \"{registry}\"\n{rules}\n")).unwrap_or_default();
        let line = |name: &str| format!("{name}:{}\n", bcrypt::hash(format!("{name}-secret"), 4).unwrap());
        home.write("htpasswd", &(line("anna") + &line("bert")));
        // A tag may be served without asking for a second only: so a test that outlives it sees answers that were
        // confirmed by the upstream, and, when that is gone, answers that could not be.
        let config = format!(
            "data_dir = {:?}\n\
             [mirror]\nlisten = \"{mirror}\"\n\
             [admin]\nlisten = \"{admin}\"\n\
             [cache]\ntag_ttl = \"1s\"\n\
             {hosted}\
             [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
            home.join("data"),
            upstream.url()
        );
        let config = home.write("larder.toml", &config);
        let process = serve(&config, admin, &home);
        Self { process, mirror, registry, admin, config, home }
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

    /// Where clients push.
    pub(super) fn registry(&self) -> SocketAddr {
        self.registry
    }

    pub(super) fn mirror_url(&self) -> String {
        format!("http://{}", self.mirror)
    }

    /// How many requests were answered with this outcome; any outcome if it is empty.
    pub(super) fn requests(&self, outcome: &str) -> u64 {
        let page = http::get(self.admin, "/metrics").unwrap();
        assert_eq!(page.status, 200);
        let label = format!("outcome=\"{outcome}");
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let lines = text.lines().filter(|line| line.starts_with("larder_requests_total{"));
        let counts = lines.filter(|line| line.contains(&label)).filter_map(|line| line.rsplit(' ').next());
        counts.map(|count| count.parse::<u64>().unwrap()).sum()
    }
}

fn serve(config: &PathBuf, admin: SocketAddr, home: &Scratch) -> Process {
    let mut command = command(env!("CARGO_BIN_EXE_larder"), home.path());
    command.arg("serve").arg("--config").arg(config);
    let mut process = Process::spawn("larder", &mut command, home.join("log"));
    process.wait_until_ready(|_| http::get(admin, "/readyz").ok().filter(|answer| answer.status == 200));
    process
}
