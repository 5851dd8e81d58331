//! Debian's skopeo, reading a backup as the OCI image layout that it is.

use std::fs;
use std::path::Path;

use crate::support;
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::pushing::Remote;

use super::process::{run, wanted};
use super::scratch::Scratch;
use super::skopeo::SKOPEO;

const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"*/ui\"\npush = [\"*\"]";

fn copy(home: &Scratch, options: &[&str], from: &str, to: &str) {
    let mut command = SKOPEO.command(home.path());
    run(command.args(["--insecure-policy", "copy"]).args(options).args([from, to]));
}

/// That skopeo's `dir:` has this image as it is.
fn assert_copied(directory: &Path, image: &Image) {
    assert_eq!(fs::read(directory.join("manifest.json")).unwrap(), image.manifest);
    for blob in image.blobs.iter().chain(image.children.iter().flat_map(|child| &child.blobs)) {
        let digest = larder::oci::Digest::sha256(blob);
        assert_eq!(fs::read(directory.join(digest.hex())).unwrap(), *blob);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_reads_a_backup_as_an_oci_layout() {
    if !wanted(&super::skopeo::PROGRAMS) {
        return;
    }
    let (hub, home) = (Hub::plain().await, Scratch::new("layout"));
    let registry = format!("[registry]\nlisten = \"127.0.0.1:0\"\n{OPEN}\n");
    let larder = support::larder::Larder::configured(&hub, "pin = [\"library/base:1\"]", &registry).await;
    let (one, many) = (Image::unpackable(1), Image::index(&[Image::unpackable(2), Image::unpackable(3)]));
    let repo = Remote::new(larder.registry(), "golden/ui");
    for (tag, image) in [("v1", &one), ("many", &many)] {
        repo.push(tag, image).await;
    }
    // What is named is fetched, too; what is asked for is there when it was answered.
    let base = Image::unpackable(4);
    hub.push("library/base", "1", &base);
    assert_eq!(larder.get("/v2/library/base/manifests/1").await.status, 200);
    larder.until_idle().await;
    let layout = home.join("backup");
    let mut command = support::binary::larder();
    command.arg("backup").arg(&layout).args(["--admin", &format!("http://{}", larder.admin())]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    for (name, image) in [("golden/ui:v1", &one), ("golden/ui:many", &many), ("docker.io/library/base:1", &base)] {
        let target = home.join(&name.replace(['/', ':'], "-"));
        fs::create_dir_all(&target).unwrap();
        let from = format!("oci:{}:{name}", layout.display());
        let to = format!("dir:{}", target.display());
        let (home_of, options) = (&home, ["--all"]);
        tokio::task::block_in_place(|| copy(home_of, &options, &from, &to));
        assert_copied(&target, image);
    }
    // And back into a registry, without Larder's own command.
    let from = format!("oci:{}:golden/ui:many", layout.display());
    let to = format!("docker://{}/again/ui:many", larder.registry());
    tokio::task::block_in_place(|| copy(&home, &["--all", "--dest-tls-verify=false"], &from, &to));
    Remote::new(larder.registry(), "again/ui").assert_pulls("many", &many).await;
}
