//! Debian's podman, with Larder as a mirror in its `registries.conf`.

use std::process::Command;

use serde_json::Value;

use super::Client;
use super::images::Image;
use super::larder::Larder;
use super::process::{Program, attempt, run};
use super::pushes::{Login, Pusher};
use super::scratch::Scratch;

const PODMAN: Program = Program::new("podman", "podman");
const CONMON: Program = Program::new("conmon", "conmon");
const RUNC: Program = Program::new("runc", "runc");

pub(super) const PROGRAMS: [Program; 3] = [PODMAN, CONMON, RUNC];

/// Docker Hub with a mirror in front, in the form that Podman, Buildah, CRI-O and skopeo share.
pub(super) fn registries_conf(mirror: &Larder) -> String {
    format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        mirror.mirror()
    )
}

pub(super) struct Podman {
    home: Scratch,
}

impl Podman {
    pub(super) fn using(mirror: &Larder) -> Self {
        let home = Scratch::new("podman");
        home.write("registries.conf", &registries_conf(mirror));
        home.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        Self { home }
    }

    fn podman(&self, arguments: &[&str]) -> String {
        run(podman(&self.home).args(arguments))
    }
}

impl Client for Podman {
    fn pull(&mut self, reference: &str) {
        let policy = self.home.join("policy.json");
        self.podman(&["pull", "--quiet", "--signature-policy", policy.to_str().unwrap(), reference]);
    }

    fn check(&self, image: &Image, reference: &str) {
        let found: Value = serde_json::from_str(&self.podman(&["image", "inspect", reference])).unwrap();
        let config = image.local().blobs[0].digest.trim_start_matches("sha256:");
        assert_eq!(found[0]["Id"], config, "{reference}");
        let digests = found[0]["RepoDigests"].to_string();
        assert!(digests.contains(&image.top.digest), "{reference} became {digests}");
    }

    fn run(&self, reference: &str) -> Option<String> {
        // By default podman raises both limits to what a machine's root may, which root in a container or a small VM
        // (no CAP_SYS_RESOURCE) may not.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let mut command = podman(&self.home);
        command.args(["run", "--rm", "--network", "none", "--pull", "never"]).args(limits).arg(reference);
        Some(run(&mut command))
    }

    fn forget_images(&mut self) {
        self.podman(&["rmi", "--all", "--force"]);
    }

    fn wipe(&mut self) {
        self.home.remove("root");
        self.home.remove("run");
        self.home.remove("tmp");
    }
}

impl Pusher for Podman {
    fn login(&mut self, registry: &str, login: Login) -> Result<(), String> {
        let mut command = podman(&self.home);
        command.args(["login", "--tls-verify=false", "--username", login.user, "--password", login.password, registry]);
        attempt(&mut command).map(drop)
    }

    fn push(&mut self, source: &str, target: &str, _login: Option<Login>) -> Result<String, String> {
        self.podman(&["tag", source, target]);
        let policy = self.home.join("policy.json");
        let policy = ["--signature-policy", policy.to_str().unwrap()];
        let mut command = podman(&self.home);
        command.args(["push", "--tls-verify=false"]).args(policy).arg(target);
        attempt(&mut command).map(|output| output.concat())
    }

    fn pull_pushed(&mut self, reference: &str, _login: Option<Login>) -> Result<(), String> {
        let policy = self.home.join("policy.json");
        let policy = ["--signature-policy", policy.to_str().unwrap()];
        let mut command = podman(&self.home);
        command.args(["pull", "--quiet", "--tls-verify=false"]).args(policy).arg(reference);
        attempt(&mut command).map(drop)
    }
}

fn podman(home: &Scratch) -> Command {
    let mut command = PODMAN.command(home.path());
    command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run"));
    command.arg("--tmpdir").arg(home.join("tmp"));
    // runc, because crun refuses machines that have cgroup v1 and v2 mounted at once; and neither systemd nor its
    // journal, because containers and build machines have none.
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    command.env("CONTAINERS_REGISTRIES_CONF", home.join("registries.conf"));
    command
}
