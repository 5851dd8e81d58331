//! Debian's dockerd with Larder among its `registry-mirrors`, as `larder setup` writes them.
//!
//! It runs beside any dockerd of the machine: own roots, socket, pid file and configuration.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Client;
use super::images::Image;
use super::larder::Larder;
use super::process::{Process, Program, attempt, run};
use super::pushes::{Login, Pusher};
use super::scratch::Scratch;

const DOCKERD: Program = Program::new("dockerd", "docker.io");
const DOCKER: Program = Program::new("docker", "docker.io");

pub(super) const PROGRAMS: [Program; 2] = [DOCKERD, DOCKER];

pub(super) struct Docker {
    daemon: Process,
    /// Whether certificates are looked for, which have one place only.
    over_etc: bool,
    home: Scratch,
}

impl Docker {
    pub(super) fn using(mirror: &Larder) -> Self {
        Self::set_up_by(mirror, |home| {
            if mirror.registry_is_tls() {
                mirror.certify_at("/etc/docker/certs.d/", home);
            }
        })
    }

    /// One that was not told whom to trust.
    pub(super) fn distrusting(mirror: &Larder) -> Self {
        Self::set_up_by(mirror, |_| {})
    }

    fn set_up_by(mirror: &Larder, trust: impl FnOnce(&Path)) -> Self {
        let home = Scratch::new("docker");
        mirror.set_up("docker", home.path());
        trust(home.path());
        let over_etc = mirror.is_tls() || mirror.registry_is_tls();
        Self { daemon: start(&home, over_etc), over_etc, home }
    }

    /// One that knows no mirror.
    pub(super) fn alone() -> Self {
        let home = Scratch::new("docker");
        home.write("etc/docker/daemon.json", "{}");
        Self { daemon: start(&home, false), over_etc: false, home }
    }

    /// One on a machine whose `/etc` is that of `home`, with these variables.
    pub(super) fn on_machine(home: Scratch, variables: &[(&str, &str)]) -> Self {
        let daemon = start_with(&home, true, variables);
        Self { daemon, over_etc: true, home }
    }

    /// Its machine.
    pub(super) fn home(&self) -> &Scratch {
        &self.home
    }

    pub(super) fn docker(&self, arguments: &[&str]) -> String {
        run(docker(&self.home).args(arguments))
    }
}

impl Client for Docker {
    fn pull(&mut self, reference: &str) {
        self.docker(&["pull", reference]);
    }

    fn check(&self, image: &Image, reference: &str) {
        let found: Value = serde_json::from_str(&self.docker(&["image", "inspect", reference])).unwrap();
        // An image's id is its config's digest in the classic store, the digest its name stood for in containerd's.
        let id = found[0]["Id"].as_str().unwrap();
        assert!([&image.local().blobs[0].digest, &image.top.digest].iter().any(|it| *it == id), "{reference} is {id}");
        let digests = found[0]["RepoDigests"].to_string();
        assert!(digests.contains(&image.top.digest), "{reference} became {digests}");
    }

    fn run(&self, reference: &str) -> Option<String> {
        // No network: the daemon runs without a bridge, since it must not touch the machine's firewall.
        Some(self.docker(&["run", "--rm", "--network", "none", "--pull", "never", reference]))
    }

    fn forget_images(&mut self) {
        let ids = self.docker(&["image", "ls", "--all", "--quiet"]);
        let mut remove = docker(&self.home);
        run(remove.args(["image", "rm", "--force"]).args(ids.lines()));
    }

    fn wipe(&mut self) {
        self.daemon.stop();
        self.home.remove("root");
        self.home.remove("exec");
        self.daemon = start(&self.home, self.over_etc);
    }
}

impl Pusher for Docker {
    fn login(&mut self, registry: &str, login: Login) -> Result<(), String> {
        let mut command = docker(&self.home);
        attempt(command.args(["login", "--username", login.user, "--password", login.password, registry])).map(drop)
    }

    fn push(&mut self, source: &str, target: &str, _login: Option<Login>) -> Result<String, String> {
        self.docker(&["tag", source, target]);
        attempt(docker(&self.home).args(["push", target])).map(|output| output.concat())
    }

    fn pull_pushed(&mut self, reference: &str, _login: Option<Login>) -> Result<(), String> {
        attempt(docker(&self.home).args(["pull", reference])).map(drop)
    }
}

fn start(home: &Scratch, over_etc: bool) -> Process {
    start_with(home, over_etc, &[])
}

fn start_with(home: &Scratch, over_etc: bool, variables: &[(&str, &str)]) -> Process {
    let mut command = if over_etc {
        DOCKERD.command_over_etc(home.path(), &home.join("etc"))
    } else {
        let mut command = DOCKERD.command(home.path());
        command.arg("--config-file").arg(home.join("etc/docker/daemon.json"));
        command
    };
    command.arg("--data-root").arg(home.join("root")).arg("--exec-root").arg(home.join("exec"));
    command.arg("--pidfile").arg(home.join("pid")).arg("--host").arg(socket(home));
    command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
    command.envs(variables.iter().copied());
    let mut daemon = Process::spawn(DOCKERD.name, &mut command, home.join("log"));
    daemon.wait_until_ready(|daemon| daemon.log().contains("API listen on").then_some(()));
    daemon
}

fn docker(home: &Scratch) -> Command {
    let mut command = DOCKER.command(home.path());
    command.arg("--host").arg(socket(home));
    command
}

pub(super) fn socket(home: &Scratch) -> String {
    format!("unix://{}", home.join("sock").display())
}
