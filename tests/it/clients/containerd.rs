//! Debian's containerd and its `ctr`, with Larder named in a `hosts.toml`, as `larder setup` writes it.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::Client;
use super::images::Image;
use super::larder::Larder;
use super::process::{Process, Program, attempt, fails, run};
use super::pushes::{Login, Pusher};
use super::scratch::Scratch;

const CONTAINERD: Program = Program::new("containerd", "containerd");
const CTR: Program = Program::new("ctr", "containerd");
const RUNC: Program = Program::new("runc", "runc");

pub(super) const PROGRAMS: [Program; 3] = [CONTAINERD, CTR, RUNC];

pub(super) struct Containerd {
    daemon: Process,
    containers: Cell<usize>,
    /// Whether it asks for a certificate.
    verifies: bool,
    home: Scratch,
}

impl Containerd {
    pub(super) fn using(mirror: &Larder) -> Self {
        let verifies = mirror.registry_is_tls();
        let client = Self::set_up_by(|root| {
            mirror.set_up("containerd", root);
            if verifies {
                let ca = mirror.certify_at("/etc/containerd/certs.d/", root);
                let hosts = format!("[host.\"https://{}\"]\nca = {ca:?}\n", mirror.registry());
                fs::write(ca.with_file_name("hosts.toml"), hosts).unwrap();
            }
        });
        Self { verifies, ..client }
    }

    /// One that was not told whom to trust.
    pub(super) fn distrusting(mirror: &Larder) -> Self {
        Self { verifies: true, ..Self::set_up_by(|root| mirror.set_up("containerd", root)) }
    }

    pub(super) fn set_up_by(set_up: impl FnOnce(&Path)) -> Self {
        let home = Scratch::new("ctrd");
        set_up(home.path());
        // The CRI plugin wants CNI and a network of the machine's; ctr does without.
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            home.join("root"),
            home.join("state"),
            home.join("sock"),
            home.join("ttrpc")
        );
        home.write("config.toml", &config);
        let daemon = start(&home);
        Self { daemon, containers: Cell::new(0), verifies: false, home }
    }

    /// Its machine.
    pub(super) fn home(&self) -> &Scratch {
        &self.home
    }

    pub(super) fn cannot_pull(&self, reference: &str) -> bool {
        let hosts = self.home.join("etc/containerd/certs.d");
        let mut pull = ctr(&self.home);
        fails(pull.args(["images", "pull", "--hosts-dir"]).arg(hosts).arg(reference))
    }

    fn manner(&self) -> Vec<String> {
        if !self.verifies {
            return vec!["--plain-http".to_owned()];
        }
        vec!["--hosts-dir".to_owned(), self.home.join("etc/containerd/certs.d").to_str().unwrap().to_owned()]
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        run(ctr(&self.home).args(arguments))
    }
}

impl Client for Containerd {
    fn pull(&mut self, reference: &str) {
        let hosts = self.home.join("etc/containerd/certs.d");
        self.ctr(&["images", "pull", "--hosts-dir", hosts.to_str().unwrap(), reference]);
    }

    fn check(&self, image: &Image, reference: &str) {
        let listed = self.ctr(&["images", "ls", &format!("name=={reference}")]);
        assert!(listed.contains(&image.top.digest), "{reference} became {listed}");
    }

    fn run(&self, reference: &str) -> Option<String> {
        // runc keeps every containerd's containers in one place, so the name must be unique on the machine.
        let home = self.home.path().file_name().unwrap().to_str().unwrap();
        let id = format!("{home}-{}", self.containers.replace(self.containers.get() + 1));
        Some(self.ctr(&["run", "--rm", reference, &id]))
    }

    fn forget_images(&mut self) {
        let names = self.ctr(&["images", "ls", "--quiet"]);
        let mut remove = ctr(&self.home);
        // Without --sync the content is collected some time later, and the next pull might still find it.
        run(remove.args(["images", "rm", "--sync"]).args(names.lines()));
        assert_eq!(self.ctr(&["content", "ls", "--quiet"]).trim(), "");
    }

    fn wipe(&mut self) {
        self.daemon.stop();
        self.home.remove("root");
        self.home.remove("state");
        self.daemon = start(&self.home);
    }
}

impl Pusher for Containerd {
    /// It keeps no logins: each command has its own.
    fn login(&mut self, _registry: &str, _login: Login) -> Result<(), String> {
        Ok(())
    }

    fn push(&mut self, source: &str, target: &str, login: Option<Login>) -> Result<String, String> {
        self.ctr(&["images", "tag", "--force", source, target]);
        let mut command = ctr(&self.home);
        command.args(["images", "push"]).args(self.manner()).args(user(login)).arg(target);
        attempt(&mut command).map(|output| output.concat())
    }

    fn pull_pushed(&mut self, reference: &str, login: Option<Login>) -> Result<(), String> {
        let mut command = ctr(&self.home);
        command.args(["images", "pull"]).args(self.manner()).args(user(login)).arg(reference);
        attempt(&mut command).map(drop)
    }
}

fn user(login: Option<Login>) -> Vec<String> {
    let pair = login.map(|login| vec!["--user".to_owned(), format!("{}:{}", login.user, login.password)]);
    pair.unwrap_or_default()
}

fn start(home: &Scratch) -> Process {
    let mut command = CONTAINERD.command(home.path());
    command.arg("--config").arg(home.join("config.toml"));
    let mut daemon = Process::spawn(CONTAINERD.name, &mut command, home.join("log"));
    daemon.wait_until_ready(|daemon| daemon.log().contains("successfully booted").then_some(()));
    daemon
}

fn ctr(home: &Scratch) -> Command {
    let mut command = CTR.command(home.path());
    command.arg("--address").arg(home.join("sock"));
    command
}
