//! `larder gc`: on a running server through its admin address, and on a stopped one in its data directory.

use std::path::PathBuf;

use larder::hosted::GRACE;
use serde_json::Value;

use crate::support::binary::{beside, larder};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::{Larder, files};
use crate::support::pushing::Remote;

const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"*\"]";

async fn gc(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = larder();
    command.arg("gc").args(arguments);
    beside(command).await
}

/// A server with one image and one blob that nobody names.
async fn with_garbage() -> (Hub, Larder, Image, String) {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let (repo, image) = (Remote::new(larder.registry(), "team/app"), Image::small(1));
    repo.push("v1", &image).await;
    let orphan = repo.push_blob(&[7; 3000]).await.to_string();
    (hub, larder, image, orphan)
}

#[tokio::test]
async fn a_running_server_tells_what_is_garbage_and_removes_what_is_old() {
    let (_hub, larder, image, orphan) = with_garbage().await;
    let url = larder.admin().to_string();
    let (code, out, err) = gc(&["--dry-run", "--admin", &url]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&orphan) && out.contains("team/app") && out.contains("2.9 KiB"), "{out}");
    let before = files(&larder.data().join("blobs")).len();
    let (_, out, _) = gc(&["--json", "--admin", &url]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["removed"]["links"].as_u64(), report["grace_s"].as_u64()), (Some(0), Some(GRACE.as_secs())));
    assert_eq!(report["garbage"][0]["digest"], orphan);

    larder.clock.advance(GRACE);
    let (_, out, _) = gc(&["--admin", &url]).await;
    assert!(out.starts_with("removed: 0 B in 0 blobs, and 1 links\n"), "{out}");
    larder.clock.advance(GRACE);
    let (_, out, _) = gc(&["--admin", &url]).await;
    assert_eq!(out, "removed: 2.9 KiB in 1 blobs, and 0 links\nno garbage is left\n");
    assert_eq!(files(&larder.data().join("blobs")).len(), before - 1);
    Remote::new(larder.registry(), "team/app").assert_pulls("v1", &image).await;
}

#[tokio::test]
async fn a_stopped_servers_directory_is_cleaned_at_once() {
    let (_hub, mut larder, image, orphan) = with_garbage().await;
    larder.stop().await;
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("larder.toml");
    // Nobody listens on port 1.
    let text = format!("data_dir = {:?}\n[admin]\nlisten = \"127.0.0.1:1\"\n", larder.data());
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let blobs = |larder: &Larder| -> Vec<PathBuf> {
        files(&larder.data().join("blobs")).into_iter().map(|(path, _)| path).collect()
    };
    let before = blobs(&larder);
    let (code, out, err) = gc(&["--dry-run", "--config", config]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&orphan), "{out}");
    assert_eq!(blobs(&larder), before, "a dry run removes nothing");
    let (code, out, err) = gc(&["--config", config]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "removed: 2.9 KiB in 1 blobs, and 1 links\nno garbage is left\n");
    larder.start().await;
    Remote::new(larder.registry(), "team/app").assert_pulls("v1", &image).await;

    // A server that runs there and cannot be asked keeps its directory to itself.
    let (code, _, err) = gc(&["--config", config]).await;
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    let (code, _, err) = gc(&["--admin", "http://127.0.0.1:1"]).await;
    assert!(code == Some(1) && err.contains("no server answers"), "{err}");
}
