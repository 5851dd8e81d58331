//! Debian's podman, with Larder as a mirror in its `registries.conf`, as `larder setup` writes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Client;
use super::images::Image;
use super::larder::Larder;
use super::process::{Program, attempt, fails, run};
use super::pushes::{Login, Pusher};
use super::scratch::Scratch;
use crate::support::larder::files;

const PODMAN: Program = Program::new("podman", "podman");
const CONMON: Program = Program::new("conmon", "conmon");
const RUNC: Program = Program::new("runc", "runc");

pub(super) const PROGRAMS: [Program; 3] = [PODMAN, CONMON, RUNC];

/// The drop-ins that `larder setup` writes for Podman, Buildah, CRI-O and skopeo, as one file: an engine that is told where
/// its configuration is takes one.
pub(super) fn registries_conf(home: &Scratch) -> PathBuf {
    let drop_ins = files(&home.join("etc/containers/registries.conf.d"));
    assert!(!drop_ins.is_empty(), "larder setup wrote nothing");
    home.write(
        "registries.conf",
        &drop_ins.into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect::<String>(),
    )
}

/// Where certificates are looked for by Podman, Buildah and skopeo.
pub(super) const CERTS: &str = "/etc/containers/certs.d/";

/// Whether a registry's certificate is asked for.
pub(super) fn tls_verify(registry_is_tls: bool) -> &'static str {
    if registry_is_tls { "--tls-verify=true" } else { "--tls-verify=false" }
}

pub(super) struct Podman {
    /// Whether certificates are looked for, which have one place only.
    over_etc: bool,
    /// Whether it asks a registry for one.
    verifies: bool,
    home: Scratch,
}

impl Podman {
    pub(super) fn using(mirror: &Larder) -> Self {
        let client = Self::distrusting(mirror);
        if mirror.registry_is_tls() {
            mirror.certify_at(CERTS, client.home.path());
        }
        client
    }

    /// One that was not told whom to trust as a registry.
    pub(super) fn distrusting(mirror: &Larder) -> Self {
        let verifies = mirror.registry_is_tls();
        let over_etc = mirror.is_tls() || verifies;
        Self { verifies, ..Self::set_up_by(|root| mirror.set_up("podman", root), over_etc) }
    }

    pub(super) fn set_up_by(set_up: impl FnOnce(&Path), over_etc: bool) -> Self {
        let home = Scratch::new("podman");
        set_up(home.path());
        home.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        Self { over_etc, verifies: false, home }
    }

    pub(super) fn cannot_pull(&self, reference: &str) -> bool {
        let policy = self.home.join("policy.json");
        fails(self.command().args(["pull", "--quiet", "--signature-policy"]).arg(policy).arg(reference))
    }

    fn command(&self) -> Command {
        podman(&self.home, self.over_etc)
    }

    fn podman(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments))
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
        let mut command = self.command();
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
        let mut command = self.command();
        command.args(["login", tls_verify(self.verifies), "--username", login.user]);
        command.args(["--password", login.password, registry]);
        attempt(&mut command).map(drop)
    }

    fn push(&mut self, source: &str, target: &str, _login: Option<Login>) -> Result<String, String> {
        self.podman(&["tag", source, target]);
        let policy = self.home.join("policy.json");
        let policy = ["--signature-policy", policy.to_str().unwrap()];
        let mut command = self.command();
        command.args(["push", tls_verify(self.verifies)]).args(policy).arg(target);
        attempt(&mut command).map(|output| output.concat())
    }

    fn pull_pushed(&mut self, reference: &str, _login: Option<Login>) -> Result<(), String> {
        let policy = self.home.join("policy.json");
        let policy = ["--signature-policy", policy.to_str().unwrap()];
        let mut command = self.command();
        command.args(["pull", "--quiet", tls_verify(self.verifies)]).args(policy).arg(reference);
        attempt(&mut command).map(drop)
    }
}

fn podman(home: &Scratch, over_etc: bool) -> Command {
    let mut command = if over_etc {
        PODMAN.command_over_etc(home.path(), &home.join("etc"))
    } else {
        let mut command = PODMAN.command(home.path());
        command.env("CONTAINERS_REGISTRIES_CONF", registries_conf(home));
        command
    };
    command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run"));
    command.arg("--tmpdir").arg(home.join("tmp"));
    // runc, because crun refuses machines that have cgroup v1 and v2 mounted at once; and neither systemd nor its
    // journal, because containers and build machines have none.
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    command
}
