//! `larder warm`, through the built program: what it pulls is cached afterwards, and what fails is said.

use serde_json::Value;

use crate::support::binary::{beside, larder};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;
use crate::support::pushing::Remote;

async fn warm(larder_: &Larder, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = larder();
    command.args(["warm", "--mirror", &larder_.mirror().to_string()]).args(arguments);
    beside(command).await
}

#[tokio::test]
async fn what_was_warmed_is_served_when_upstream_is_gone() {
    let (hub, other) = (Hub::plain().await, Hub::plain().await);
    let image = Image::index(&[Image::oci(1, &[300_000, 20]), Image::small(2)]);
    let (single, foreign) = (Image::small(3), Image::small(4));
    hub.push("library/python", "3.11", &image);
    hub.push("library/single", "latest", &single);
    other.push("org/app", "v1", &foreign);
    let larder = Larder::mirroring_all(&[("docker.io", &hub, ""), ("ghcr.io", &other, "")], "").await;
    let home = tempfile::tempdir().unwrap();
    let list = home.path().join("images");
    std::fs::write(&list, "# what the team needs\n\nsingle  # the newest\nghcr.io/org/app:v1\n").unwrap();
    let arguments = ["python:3.11", "--platform", "linux/arm64", "--file", list.to_str().unwrap()];
    let (code, out, err) = warm(&larder, &arguments).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(out.starts_with("python:3.11: 3 blobs, 2.4 KiB; 0 were there already\nsingle: 3 blobs"), "{out}");
    assert!(
        err.contains("python:3.11\n  sha256:") && [" miss\n", " joined\n"].iter().any(|how| err.contains(how)),
        "{err}"
    );
    assert_eq!(hub.bytes_sent(&image.children[0].blob_digests()[1]), 0, "nobody asked for that platform");

    larder.until_idle().await;
    let (code, out, _) = warm(&larder, &[&arguments[..], &["--json"]].concat()).await;
    let again: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, again[0]["outcomes"]["hit"].as_u64()), (Some(0), Some(3)), "{again}");
    hub.stop().await;
    other.stop().await;
    let arm = &image.children[1];
    Remote::new(larder.mirror(), "library/python").assert_pulls(arm.digest(), arm).await;
    Remote::new(larder.mirror(), "library/single").assert_pulls("latest", &single).await;
    Remote::new(larder.mirror(), "ghcr.io/org/app").assert_pulls("v1", &foreign).await;
}

#[tokio::test]
async fn all_platforms_are_pulled_when_they_are_asked_for() {
    let hub = Hub::plain().await;
    let image = Image::index_with_attestations(&[Image::small(1), Image::small(2)]);
    hub.push("org/app", "v1", &image);
    let larder = Larder::mirroring(&hub).await;
    let (code, _, err) = warm(&larder, &["org/app:v1", "--platform", "all"]).await;
    assert_eq!(code, Some(0), "{err}");
    larder.until_idle().await;
    hub.stop().await;
    Remote::new(larder.mirror(), "org/app").assert_pulls("v1", &image).await;
}

#[tokio::test]
async fn one_image_that_fails_stops_no_other() {
    let hub = Hub::plain().await;
    let (image, broken) = (Image::small(1), Image::small(2));
    hub.push("org/app", "v1", &image);
    hub.push("org/broken", "v1", &broken);
    hub.remove_blob("org/broken", broken.blob_digests()[2]);
    hub.push("org/index", "v1", &Image::index(&[Image::small(3)]));
    let larder = Larder::mirroring(&hub).await;
    let images = ["org/none", "org/broken:v1", "org/index:v1", "ghcr.io/org/app", "org/app:v1"];
    let (code, out, err) = warm(&larder, &[&images[..], &["--platform", "linux/mips"]].concat()).await;
    assert_eq!(code, Some(1));
    let last = err.lines().last().unwrap();
    assert_eq!(last, "larder: not pulled: org/none, org/broken:v1, org/index:v1, ghcr.io/org/app", "{err}");
    assert!(out.contains("org/index:v1: has no linux/mips; it has linux/amd64\n"), "{out}");
    assert!(out.contains("ghcr.io/org/app: ") && out.contains("[[upstream]]"), "{out}");
    assert!(out.contains("org/app:v1: 3 blobs"), "{out}");
    larder.until_idle().await;
    hub.stop().await;
    Remote::new(larder.mirror(), "org/app").assert_pulls("v1", &image).await;
    assert_eq!(warm(&larder, &["a b"]).await.0, Some(2));
    assert_eq!(warm(&larder, &["a", "--platform", "linux"]).await.0, Some(2));
}

#[tokio::test]
async fn a_download_that_breaks_is_said_and_goes_on_when_it_is_repeated() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("org/app", "v1", &image);
    let larder = Larder::mirroring(&hub).await;
    let rule = hub.fault(Target::Cdn, Fault::WrongBytes);
    let (code, out, _) = warm(&larder, &["org/app:v1"]).await;
    assert!(code == Some(1) && out.starts_with("org/app:v1: "), "{out}");
    rule.lift();
    let (code, _, err) = warm(&larder, &["org/app:v1"]).await;
    assert_eq!(code, Some(0), "{err}");
}
