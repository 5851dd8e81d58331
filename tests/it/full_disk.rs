//! A disk that is full, or that fails: whoever pulls gets every byte, nothing that was acknowledged is lost, and when there
//! is room again all is as it was, without a restart.
//!
//! Needs root for a file system of its own; says SKIP where there is none.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use larder::oci::Digest;
use tempfile::TempDir;

use crate::support::client::Answer;
use crate::support::hub::{Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound};
use crate::support::pushing::Remote;

const OURS: &str = "[registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"push\"\n[[registry.repository]]\n\
                    pattern = \"golden/**\"\npush = [\"*\"]\n";
/// The index keeps 64 MiB back for such a day.
const DISK: &str = "128m";

/// A small file system of its own.
struct Disk {
    home: TempDir,
}

impl Disk {
    fn new() -> Option<Disk> {
        let disk = Disk { home: tempfile::tempdir().unwrap() };
        fs::create_dir(disk.at()).unwrap();
        let options = format!("size={DISK}");
        match disk.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"]) {
            Ok(()) => Some(disk),
            Err(reason) => {
                // Past the test harness, which keeps what a passing test prints to itself.
                let _ = writeln!(std::io::stderr(), "SKIP: no disk can be filled here: {reason}");
                None
            }
        }
    }

    fn at(&self) -> PathBuf {
        self.home.path().join("disk")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let output =
            Command::new(program).args(arguments).arg(self.at()).output().map_err(|error| error.to_string())?;
        output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn stuffing(&self) -> PathBuf {
        self.at().join("stuffing")
    }

    /// Leaves so many bytes free.
    fn stuff(&self, free: u64) {
        let mut file = File::create(self.stuffing()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(free)).unwrap();
    }

    fn relieve(&self) {
        fs::remove_file(self.stuffing()).unwrap();
    }

    async fn larder(&self, hub: &Hub, cache: &str) -> Larder {
        let home = tempfile::tempdir().unwrap();
        Larder::keeping(home, self.at().join("data"), &[("docker.io", hub, OURS)], cache).await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.run("umount", &["-l"]);
    }
}

/// Pulls all of an image, which must come whole; how each piece came about.
async fn pull(larder: &Larder, name: &str, image: &Image) -> Vec<String> {
    let outcome = |answer: &Answer| answer.header("x-larder-cache").unwrap_or_default().to_owned();
    let answer = larder.get(&format!("/v2/{name}/manifests/latest")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]), "{}", answer.text());
    let mut outcomes = vec![outcome(&answer)];
    for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
        let answer = larder.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert!(answer.status == 200 && answer.complete && answer.body == *content, "{digest}: {}", answer.status);
        outcomes.push(outcome(&answer));
    }
    larder.until_idle().await;
    outcomes
}

async fn is_served_without_upstream(larder: &Larder, hub: &Hub, name: &str, image: &Image) {
    hub.clear();
    let outcomes = pull(larder, name, image).await;
    assert!(outcomes.iter().all(|outcome| outcome == "hit"), "{name}: {outcomes:?}");
    // What is pinned is asked about by itself, by HEAD.
    assert_eq!(hub.count(Target::ManifestGet) + hub.count(Target::Blob) + hub.count(Target::Cdn), 0);
}

fn leftovers(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("ingest")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".tmp")).collect()
}

#[tokio::test]
async fn pulls_get_every_byte_while_the_disk_is_full_and_are_kept_again_when_it_is_not() {
    let Some(disk) = Disk::new() else { return };
    let hub = Hub::plain().await;
    let mut larder = disk.larder(&hub, "min_free = \"0\"\npin = [\"library/kept:*\"]\n").await;
    let kept = Image::oci(1, &[900_000, 30_000]);
    hub.push("library/kept", "latest", &kept);
    pull(&larder, "library/kept", &kept).await;
    // At each of these another write is the one that fails.
    for (n, free) in [0, 4096, 20_000, 200_000, 1_500_000].into_iter().enumerate() {
        let (name, image) = (format!("library/n{n}"), Image::oci(10 + n as u64, &[2_000_000, 30_000, 900]));
        hub.push(&name, "latest", &image);
        pull(&larder, "library/kept", &kept).await;
        disk.stuff(free);
        pull(&larder, &name, &image).await;
        // Of one that no manifest announced nothing is set apart: it fails under way.
        let content = noise(100 + n as u64, 3_000_000);
        let digest = hub.add_blob("library/loose", content.clone());
        let answer = larder.get(&format!("/v2/library/loose/blobs/{digest}")).await;
        assert!(answer.status == 200 && answer.complete && answer.body == content, "{free} free: {}", answer.status);
        larder.until_idle().await;
        is_served_without_upstream(&larder, &hub, "library/kept", &kept).await;
        disk.relieve();
        // Long enough that the tag is asked about, and the manifest written again.
        larder.clock.advance(Duration::from_secs(301));
        pull(&larder, &name, &image).await;
        is_served_without_upstream(&larder, &hub, &name, &image).await;
        assert_eq!(leftovers(&larder.data()), Vec::<PathBuf>::new());
        larder.restart().await;
        is_served_without_upstream(&larder, &hub, &name, &image).await;
    }
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_push_to_a_full_disk_is_refused_and_costs_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::new() else { return };
    let hub = Hub::plain().await;
    let mut larder = disk.larder(&hub, "min_free = \"0\"\n").await;
    let golden = Remote::new(larder.registry(), "golden/app");
    let first = Image::oci(2, &[400_000, 30_000]);
    golden.push("v1", &first).await;
    let mut refused = 0;
    for (n, free) in [0, 4096, 20_000, 100_000, 500_000].into_iter().enumerate() {
        let image = Image::oci(30 + n as u64, &[300_000, 20_000]);
        let mut acknowledged = Vec::new();
        disk.stuff(free);
        for blob in &image.blobs {
            let path = golden.path(&format!("blobs/uploads/?digest={}", Digest::sha256(blob)));
            let call = crate::support::client::Call::new("POST", &path).body(blob);
            let answer = golden.send(call).await;
            match answer.status {
                201 => acknowledged.push(blob.clone()),
                status => {
                    assert_eq!(status, 507, "{}", answer.text());
                    assert!(answer.text().contains("disk is full"), "{}", answer.text());
                    refused += 1;
                }
            }
        }
        let answer = golden.put(format!("n{n}"), image.media_type.as_str(), &image.manifest).await;
        assert_ne!(answer.status, 0);
        golden.assert_pulls("v1", &first).await;
        for blob in &acknowledged {
            let kept = golden.get(&format!("blobs/{}", Digest::sha256(blob))).await;
            assert_eq!((kept.status, &kept.body[..]), (200, &blob[..]));
        }
        disk.relieve();
        golden.push(&format!("n{n}"), &image).await;
        golden.assert_pulls(format!("n{n}"), &image).await;
    }
    assert!(refused >= 5, "{refused}");
    larder.restart().await;
    let golden = Remote::new(larder.registry(), "golden/app");
    golden.assert_pulls("v1", &first).await;
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_push_leaves_min_free_and_the_cache_gives_way_to_it() {
    let Some(disk) = Disk::new() else { return };
    let hub = Hub::plain().await;
    let larder = disk.larder(&hub, "max_size = \"1GiB\"\nmin_free = \"8MiB\"\n").await;
    let cached = Image::oci(3, &[3_000_000]);
    hub.push("library/cached", "latest", &cached);
    pull(&larder, "library/cached", &cached).await;
    let golden = Remote::new(larder.registry(), "golden/app");
    disk.stuff(9 << 20);
    let image = Image::oci(4, &[2_000_000]);
    let path = golden.path(&format!("blobs/uploads/?digest={}", image.layer(0).0));
    let push = crate::support::client::Call::new("POST", &path).body(&image.layer(0).1);
    let answer = golden.send(push.clone()).await;
    assert_eq!(answer.status, 507, "{}", answer.text());
    while larder.metric("larder_cache_evictions_total", "").await < 1.0 {
        larder.clock.advance(Duration::from_secs(1));
    }
    while golden.send(push.clone()).await.status != 201 {
        tokio::task::yield_now().await;
    }
    golden.push("v1", &image).await;
    golden.assert_pulls("v1", &image).await;
    drop(larder);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_costs_a_pull_nothing() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let kept = Image::oci(7, &[300_000]);
    hub.push("library/kept", "latest", &kept);
    pull(&larder, "library/kept", &kept).await;
    // A file in the place of a directory fails whatever root may do.
    for (n, broken) in ["ingest", "cached/docker.io/library/n1"].into_iter().enumerate() {
        let (name, image) = (format!("library/n{n}"), Image::oci(50 + n as u64, &[300_000, 2000]));
        hub.push(&name, "latest", &image);
        let (place, aside) = (larder.data().join(broken), larder.data().join("aside"));
        let was_there = fs::rename(&place, &aside).is_ok();
        fs::write(&place, "").unwrap();
        pull(&larder, &name, &image).await;
        is_served_without_upstream(&larder, &hub, "library/kept", &kept).await;
        fs::remove_file(&place).unwrap();
        if was_there {
            fs::rename(&aside, &place).unwrap();
        }
        pull(&larder, &name, &image).await;
        is_served_without_upstream(&larder, &hub, &name, &image).await;
    }
    assert_sound(&larder.data());
}
