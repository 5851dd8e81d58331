//! Backups of what is pinned: it comes back elsewhere into the cache, and is served from there while upstream is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::stale::until_out_of_order;
use super::support::binary::{beside, larder};
use super::support::hub::Hub;
use super::support::image::Image;
use super::support::larder::{Larder, assert_sound};
use super::support::pushing::Remote;

const OURS: &str =
    "anonymous = \"push\"\n[[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\ndelete = [\"*\"]";

/// A backup, and configurations that name data directories whose servers do not run.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { home: tempfile::tempdir().unwrap() }
    }

    fn backup(&self) -> PathBuf {
        self.home.path().join("backup")
    }

    fn has(&self, digest: &larder::oci::Digest) -> bool {
        self.backup().join("blobs").join(digest.algorithm().as_str()).join(digest.hex()).exists()
    }

    fn stopped(&self, command: &str, data: &Path, cache: &str) -> Output {
        let file = self.home.path().join("larder.toml");
        let text = format!(
            "data_dir = {data:?}\n[admin]\nlisten = \"127.0.0.1:1\"\n[cache]\n{cache}\n[registry]\nlisten = \"127.0.0.1:0\"\n{OURS}\n"
        );
        fs::write(&file, text).unwrap();
        larder().arg(command).arg(self.backup()).arg("--json").arg("--config").arg(&file).output().unwrap()
    }

    fn backup_stopped(&self, data: &Path, cache: &str) -> Value {
        report(&self.stopped("backup", data, cache))
    }

    fn restore(&self, data: &Path) -> Value {
        report(&self.stopped("restore", data, ""))
    }
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn pull(larder: &Larder, name: &str, reference: &str, image: &Image) {
    let manifest = larder.get(&format!("/v2/{name}/manifests/{reference}")).await;
    assert_eq!((manifest.status, &manifest.body[..]), (200, &image.manifest[..]), "{name}: {}", manifest.text());
    for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
        let answer = larder.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert!(answer.status == 200 && answer.body == *content, "{name} {digest}: {}", answer.text());
    }
    larder.until_idle().await;
}

/// A server that has what was restored, and nobody to ask.
async fn restored(hub: &Hub, place: &Place) -> Larder {
    let mut larder = Larder::hosting(hub, OURS).await;
    larder.stop().await;
    place.restore(&larder.data());
    hub.stop().await;
    larder.start().await;
    until_out_of_order(&larder, "/v2/library/unknown/manifests/latest").await;
    larder
}

#[tokio::test]
async fn a_pinned_image_comes_back_and_is_pulled_while_upstream_is_gone() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OURS).await;
    let (many, child, beside) = (Image::index(&[Image::small(1), Image::small(2)]), Image::small(1), Image::small(3));
    let (by_digest, ours) = (Image::oci(4, &[5_000_000]), Image::small(5));
    hub.push("library/many", "1.0", &many);
    hub.push("library/beside", "latest", &beside);
    hub.push_untagged("team/app", &by_digest);
    Remote::new(larder.registry(), "golden/ui").push("v1", &ours).await;
    assert_eq!(larder.get("/v2/library/many/manifests/1.0").await.body, many.manifest);
    pull(&larder, "library/many", &child.digest().to_string(), &child).await;
    pull(&larder, "library/beside", "latest", &beside).await;
    pull(&larder, "team/app", &by_digest.digest().to_string(), &by_digest).await;
    larder.stop().await;

    let pinned = format!("pin = [\"library/many:*\", \"docker.io/team/app@{}\"]", by_digest.digest());
    let report = place.backup_stopped(&larder.data(), &pinned);
    assert_eq!((&report["pinned_images"], &report["tags"]), (&2.into(), &1.into()), "{report}");
    assert_eq!((&report["incomplete"], &report["repositories"]), (&0.into(), &1.into()), "{report}");
    assert!(place.has(&child.layer(0).0) && !place.has(&beside.layer(0).0));
    let index = fs::read_to_string(place.backup().join("index.json")).unwrap();
    assert!(index.contains("\"docker.io/library/many:1.0\""), "{index}");
    let again = place.backup_stopped(&larder.data(), &pinned);
    assert_eq!((&again["copied_blobs"], &again["blobs"]), (&0.into(), &report["blobs"]), "{again}");

    let other = restored(&hub, &place).await;
    // It is as old as it was where it was learnt.
    assert_eq!(other.get("/v2/library/many/manifests/1.0").await.header("x-larder-cache"), Some("hit"));
    other.clock.advance(Duration::from_secs(3600));
    let answer = other.get("/v2/library/many/manifests/1.0").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &many.manifest[..]), "{}", answer.text());
    assert_eq!(answer.header("x-larder-cache"), Some("stale"));
    assert!(answer.header("age").unwrap().parse::<u64>().unwrap() >= 3600);
    pull(&other, "library/many", &child.digest().to_string(), &child).await;
    pull(&other, "team/app", &by_digest.digest().to_string(), &by_digest).await;
    assert_eq!(other.get("/v2/library/beside/manifests/latest").await.status, 503);
    Remote::new(other.registry(), "golden/ui").assert_pulls("v1", &ours).await;
    let listed = Remote::new(other.registry(), "library/many").get("manifests/1.0").await;
    assert_eq!(listed.status, 404, "what was cached is not ours");
    assert_sound(&other.data());
}

#[tokio::test]
async fn a_running_server_gives_what_is_pinned_too() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let cache = "pin = [\"library/kept:*\"]";
    let image = Image::oci(11, &[9_000_000, 1_000]);
    hub.push("library/kept", "2", &image);
    let larder = Larder::configured(&hub, cache, &format!("[registry]\nlisten = \"127.0.0.1:0\"\n{OURS}\n")).await;
    pull(&larder, "library/kept", "2", &image).await;
    let mut command = super::support::binary::larder();
    command.arg("backup").arg(place.backup()).args(["--json", "--admin", &larder.admin().to_string()]);
    let (code, out, err) = beside(command).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["pinned_images"], 1, "{out}");
    let other = restored(&hub, &place).await;
    pull(&other, "library/kept", "2", &image).await;
}

#[tokio::test]
async fn no_link_comes_back_that_upstream_did_not_give() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let image = Image::oci(21, &[40_000]);
    let layer = image.layer(0).0;
    for name in ["library/has", "library/lacks"] {
        hub.push(name, "1", &image);
    }
    hub.remove_blob("library/lacks", layer);
    let mut larder = Larder::hosting(&hub, OURS).await;
    assert_eq!(larder.get("/v2/library/lacks/manifests/1").await.status, 200);
    assert_eq!(larder.get(&format!("/v2/library/lacks/blobs/{layer}")).await.status, 404);
    pull(&larder, "library/has", "1", &image).await;
    larder.stop().await;
    place.backup_stopped(&larder.data(), "pin = [\"library/*:1\"]");
    let other = restored(&hub, &place).await;
    pull(&other, "library/has", "1", &image).await;
    assert_eq!(other.get(&format!("/v2/library/lacks/blobs/{layer}")).await.status, 404);
}

#[tokio::test]
async fn a_tag_of_which_the_cache_knows_something_keeps_its_meaning() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let (old, new) = (Image::small(31), Image::small(32));
    hub.push("library/moved", "1", &old);
    let mut larder = Larder::hosting(&hub, OURS).await;
    pull(&larder, "library/moved", "1", &old).await;
    larder.stop().await;
    place.backup_stopped(&larder.data(), "pin = [\"library/moved:1\"]");

    hub.push("library/moved", "1", &new);
    let mut other = Larder::hosting(&hub, OURS).await;
    pull(&other, "library/moved", "1", &new).await;
    other.stop().await;
    assert_eq!(place.restore(&other.data())["pinned_images"], 1);
    hub.stop().await;
    other.start().await;
    until_out_of_order(&other, "/v2/library/unknown/manifests/latest").await;
    pull(&other, "library/moved", "1", &new).await;
    pull(&other, "library/moved", &old.digest().to_string(), &old).await;
}

#[tokio::test]
async fn an_image_that_finds_no_room_is_named_and_the_rest_is_restored() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let (large, small, ours) = (Image::oci(41, &[3_000_000]), Image::small(42), Image::oci(43, &[2_000_000]));
    hub.push("library/large", "1", &large);
    hub.push("library/small", "1", &small);
    let mut larder = Larder::hosting(&hub, OURS).await;
    Remote::new(larder.registry(), "golden/ui").push("v1", &ours).await;
    pull(&larder, "library/large", "1", &large).await;
    pull(&larder, "library/small", "1", &small).await;
    larder.stop().await;
    place.backup_stopped(&larder.data(), "pin = [\"library/*:1\"]");

    let mut other = Larder::hosting(&hub, OURS).await;
    other.stop().await;
    let output = place.stopped("restore", &other.data(), "max_size = \"1MiB\"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("docker.io/library/large 1: ") && said.contains("max_size"), "{said}");
    hub.stop().await;
    other.start().await;
    until_out_of_order(&other, "/v2/library/unknown/manifests/latest").await;
    pull(&other, "library/small", "1", &small).await;
    assert_eq!(other.get("/v2/library/large/manifests/1").await.status, 503);
    Remote::new(other.registry(), "golden/ui").assert_pulls("v1", &ours).await;
}
