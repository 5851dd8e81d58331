//! Debian's buildah, which builds on what the registry has and pushes what it built. It runs nothing.

use std::process::Command;

use super::Client;
use super::images::Image;
use super::larder::Larder;
use super::podman::{CERTS, registries_conf, tls_verify};
use super::process::{Program, attempt};
use super::pushes::{Login, Pusher};
use super::scratch::Scratch;

const BUILDAH: Program = Program::new("buildah", "buildah");

pub(super) const PROGRAMS: [Program; 1] = [BUILDAH];

pub(super) struct Buildah {
    /// Whether it asks a registry for a certificate.
    verifies: bool,
    home: Scratch,
}

impl Buildah {
    pub(super) fn using(mirror: &Larder) -> Self {
        let client = Self::distrusting(mirror);
        if mirror.registry_is_tls() {
            mirror.certify_at(CERTS, client.home.path());
        }
        client
    }

    /// One that was not told whom to trust.
    pub(super) fn distrusting(mirror: &Larder) -> Self {
        let home = Scratch::new("buildah");
        mirror.set_up("podman", home.path());
        home.write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        Self { verifies: mirror.registry_is_tls(), home }
    }

    /// Builds on `base` an image that prints `greeting`, and names it `target`.
    pub(super) fn build(&self, base: &str, greeting: &str, target: &str) {
        let file = self.home.write("greeting", greeting);
        let container = self.transfer("from", &[base]).unwrap();
        let container = container.trim();
        self.buildah(&["copy", container, file.to_str().unwrap(), "/greeting"]).unwrap();
        self.buildah(&["config", "--cmd", "cat /greeting", container]).unwrap();
        let policy = self.policy();
        self.buildah(&["commit", "--signature-policy", &policy, container, target]).unwrap();
    }

    fn policy(&self) -> String {
        self.home.join("policy.json").to_str().unwrap().to_owned()
    }

    /// A command that speaks to a registry.
    fn transfer(&self, command: &str, arguments: &[&str]) -> Result<String, String> {
        let policy = self.policy();
        let manner = [command, tls_verify(self.verifies), "--signature-policy", &policy];
        self.buildah(&[manner.as_slice(), arguments].concat())
    }

    fn buildah(&self, arguments: &[&str]) -> Result<String, String> {
        let home = &self.home;
        let mut command: Command = if self.verifies {
            BUILDAH.command_over_etc(home.path(), &home.join("etc"))
        } else {
            BUILDAH.command(home.path())
        };
        command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command.env("CONTAINERS_REGISTRIES_CONF", registries_conf(home));
        attempt(&mut command).map(|[stdout, stderr]| if stdout.is_empty() { stderr } else { stdout })
    }
}

impl Client for Buildah {
    fn pull(&mut self, reference: &str) {
        // Without a word about TLS: the mirror's own entry says it.
        self.buildah(&["pull", "--signature-policy", &self.policy(), reference]).unwrap();
    }

    fn check(&self, image: &Image, reference: &str) {
        let config = self.buildah(&["inspect", "--type", "image", "--format", "{{.FromImageID}}", reference]).unwrap();
        assert_eq!(config.trim(), image.local().blobs[0].digest.trim_start_matches("sha256:"), "{reference}");
    }

    fn run(&self, _reference: &str) -> Option<String> {
        None
    }

    fn forget_images(&mut self) {
        self.buildah(&["rmi", "--all", "--force"]).unwrap();
    }

    fn wipe(&mut self) {
        self.home.remove("root");
        self.home.remove("run");
    }
}

impl Pusher for Buildah {
    fn login(&mut self, registry: &str, login: Login) -> Result<(), String> {
        let account = ["--username", login.user, "--password", login.password, registry];
        self.buildah(&[&["login", tls_verify(self.verifies)], account.as_slice()].concat()).map(drop)
    }

    fn push(&mut self, source: &str, target: &str, _login: Option<Login>) -> Result<String, String> {
        self.transfer("push", &[source, &format!("docker://{target}")])
    }

    fn pull_pushed(&mut self, reference: &str, _login: Option<Login>) -> Result<(), String> {
        self.transfer("pull", &[reference]).map(drop)
    }
}
