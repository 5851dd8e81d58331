//! Debian's skopeo, copying through Larder into OCI layouts on disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use super::Client;
use super::images::{Image, Manifest};
use super::larder::Larder;
use super::layers;
use super::podman::registries_conf;
use super::process::{Program, attempt, run};
use super::scratch::Scratch;

pub(super) const SKOPEO: Program = Program::new("skopeo", "skopeo");

pub(super) const PROGRAMS: [Program; 1] = [SKOPEO];

/// How everything begins that is compressed.
const GZIP: &[u8] = &[0x1F, 0x8B];

/// It has no storage of its own: every copy goes to a new layout.
pub(super) struct Skopeo {
    layouts: RefCell<BTreeMap<String, String>>,
    home: Scratch,
}

impl Skopeo {
    pub(super) fn using(mirror: &Larder) -> Self {
        let home = Scratch::new("skopeo");
        mirror.set_up("podman", home.path());
        Self { layouts: RefCell::default(), home }
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
        let mut command = SKOPEO.command(self.home.path());
        command.arg("--insecure-policy").arg("--registries-conf").arg(registries_conf(&self.home));
        attempt(command.args(arguments)).map(|output| output.concat())
    }

    fn skopeo_copy(&self, options: &[&str], reference: &str, target: &str) {
        let mut command = SKOPEO.command(self.home.path());
        command.arg("--insecure-policy").arg("--registries-conf").arg(registries_conf(&self.home));
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
