//! Debian's skopeo, copying through Larder into OCI layouts on disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::Client;
use super::images::{Image, Manifest};
use super::larder::Larder;
use super::layers;
use super::podman::{CERTS, registries_conf, tls_verify};
use super::process::{Program, attempt, run};
use super::pushes::{Login, Pusher};
use super::scratch::Scratch;

pub(super) const SKOPEO: Program = Program::new("skopeo", "skopeo");

pub(super) const PROGRAMS: [Program; 1] = [SKOPEO];

/// How everything begins that is compressed.
const GZIP: &[u8] = &[0x1F, 0x8B];

/// It has no storage of its own: every copy goes to a new layout.
pub(super) struct Skopeo {
    layouts: RefCell<BTreeMap<String, String>>,
    /// Whether it asks a registry for a certificate.
    verifies: bool,
    home: Scratch,
}

impl Skopeo {
    pub(super) fn using(mirror: &Larder) -> Self {
        let client = Self::distrusting(mirror);
        if mirror.registry_is_tls() {
            mirror.certify_at(CERTS, client.home.path());
        }
        client
    }

    /// One that was not told whom to trust.
    pub(super) fn distrusting(mirror: &Larder) -> Self {
        let home = Scratch::new("skopeo");
        mirror.set_up("podman", home.path());
        Self { layouts: RefCell::default(), verifies: mirror.registry_is_tls(), home }
    }

    /// Every platform and every attestation, byte for byte, as for carrying an image to a place without a network.
    pub(super) fn copy_all(&self, image: &Image) {
        let target = self.home.join("all").join(image.tag);
        fs::create_dir_all(&target).unwrap();
        self.skopeo_copy(&["--all"], &image.by_tag(), &format!("dir:{}", target.display()));
        for digest in image.manifests().flat_map(Manifest::blob_digests) {
            assert!(target.join(digest.trim_start_matches("sha256:")).is_file(), "{} lacks {digest}", image.by_tag());
        }
        assert_eq!(fs::read(target.join("manifest.json")).unwrap(), image.top.bytes);
        self.home.remove("all");
    }

    /// Any other of its commands.
    pub(super) fn skopeo(&self, arguments: &[&str]) -> Result<String, String> {
        attempt(self.command().args(arguments)).map(|output| output.concat())
    }

    fn command(&self) -> Command {
        let mut command = if self.verifies {
            SKOPEO.command_over_etc(self.home.path(), &self.home.join("etc"))
        } else {
            SKOPEO.command(self.home.path())
        };
        command.arg("--insecure-policy").arg("--registries-conf").arg(registries_conf(&self.home));
        command
    }

    fn skopeo_copy(&self, options: &[&str], reference: &str, target: &str) {
        let mut command = self.command();
        command.arg("copy").args(options).arg(format!("docker://{reference}")).arg(target);
        run(&mut command);
    }
}

impl Client for Skopeo {
    fn pull(&mut self, reference: &str) {
        let mut layouts = self.layouts.borrow_mut();
        let name = format!("layout-{}", layouts.len());
        self.skopeo_copy(&[], reference, &format!("oci:{}", self.home.join(&name).display()));
        layouts.insert(reference.to_owned(), name);
    }

    /// On its way into an OCI layout skopeo rewrites a Docker config to OCI's words and compresses what is not. The
    /// layers that came compressed must be what they were.
    fn check(&self, image: &Image, reference: &str) {
        let layout = self.home.join(&self.layouts.borrow()[reference]);
        for blob in image.local().blobs.iter().filter(|blob| blob.bytes.starts_with(GZIP)) {
            let path = layout.join("blobs").join(blob.digest.replace(':', "/"));
            let held = fs::read(&path).unwrap_or_else(|error| panic!("{reference}: {}: {error}", path.display()));
            assert_eq!(layers::digest_of(&held), blob.digest, "{reference}");
        }
    }

    fn run(&self, _reference: &str) -> Option<String> {
        None
    }

    fn forget_images(&mut self) {
        for name in std::mem::take(self.layouts.get_mut()).into_values() {
            self.home.remove(&name);
        }
    }

    fn wipe(&mut self) {
        self.forget_images();
    }
}

impl Pusher for Skopeo {
    fn login(&mut self, registry: &str, login: Login) -> Result<(), String> {
        let account = ["--username", login.user, "--password", login.password, registry];
        self.skopeo(&[&["login", tls_verify(self.verifies)], account.as_slice()].concat()).map(drop)
    }

    fn push(&mut self, source: &str, target: &str, _login: Option<Login>) -> Result<String, String> {
        let verify = if self.verifies { "--dest-tls-verify=true" } else { "--dest-tls-verify=false" };
        self.skopeo(&["copy", verify, &format!("docker://{source}"), &format!("docker://{target}")])
    }

    fn pull_pushed(&mut self, reference: &str, _login: Option<Login>) -> Result<(), String> {
        let verify = if self.verifies { "--src-tls-verify=true" } else { "--src-tls-verify=false" };
        let layout = format!("oci:{}", self.home.join("pulled").display());
        let pulled = self.skopeo(&["copy", verify, &format!("docker://{reference}"), &layout]);
        self.home.remove("pulled");
        pulled.map(drop)
    }
}
