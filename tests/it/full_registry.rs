//! Pushes to a disk that is full (reliability.md, R4): they fail with a reason, nothing that was there suffers, room can be
//! made by deleting, and what frees room ends the trouble without a restart.
//!
//! Needs root, for a file system of its own; says SKIP where it cannot be had.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use larder::oci::Digest;

use super::support::binary::Binary;
use super::support::client::Call;
use super::support::image::{Image, noise};
use super::support::larder::{assert_sound, files};
use super::support::pushing::{Remote, refusal};

const MIB: usize = 1 << 20;
/// What the smallest file takes of such a file system.
const PAGE: u64 = 4096;

/// 64 MiB, gone when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf) -> Option<Disk> {
        std::fs::create_dir(&at).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=64m", "larder-test"];
        let mounted = Command::new("mount").args(mount).arg(&at).output().is_ok_and(|output| output.status.success());
        mounted.then_some(Disk(at))
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [MIB, 4096, 1] {
            let full = loop {
                if let Err(error) = ballast.write_all(&vec![1; size]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        }
    }

    /// Gives back so many pages of what was taken.
    fn give_back(&self, pages: u64) {
        let ballast = File::options().write(true).open(self.ballast()).unwrap();
        let length = ballast.metadata().unwrap().len();
        ballast.set_len((length - 1) / PAGE * PAGE - pages * PAGE).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn config(data: &Path) -> String {
    format!(
        "data_dir = {data:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [cache]\nmin_free = \"0\"\n[registry]\n\
         listen = \"127.0.0.1:0\"\nanonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]\n\
         delete = [\"*\"]\n[[upstream]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\"\n"
    )
}

/// `None`, and a word about it, where none can be mounted.
fn small_disk(home: &Path) -> Option<Disk> {
    let disk = Disk::new(home.join("disk"));
    if disk.is_none() {
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(std::io::stderr(), "SKIP: no file system of its own can be mounted here");
    }
    disk
}

fn is_full(answer: &super::support::client::Answer) -> bool {
    let full = answer.status == 507;
    assert!(!full || answer.text().contains("the registry's disk is full: tell who runs it"), "{}", answer.text());
    full
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_pushes_keeps_what_it_has_and_recovers() {
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = small_disk(home.path()) else { return };
    let data = disk.0.join("data");
    let larder = Binary::start(home.path(), &config(&data), "info,larder::access=off");
    let repo = Remote::new(larder.registry.unwrap(), "team/app");
    let image = Image::oci(1, &[MIB, 300_000]);
    repo.push("v1", &image).await;

    // Each way of pushing meets the end of the disk by itself: what it had taken is given back.
    let large = noise(2, 80 * MIB);
    let digest = Digest::sha256(&large);
    for way in ["post", "put", "patch"] {
        let answer = match way {
            "post" => {
                let path = repo.path(&format!("blobs/uploads/?digest={digest}"));
                repo.send(Call::new("POST", &path).body(&large)).await
            }
            "put" => repo.complete(&repo.begin().await, digest, &large).await,
            _ => repo.patch(&repo.begin().await, None, &large).await,
        };
        assert!(is_full(&answer), "{way}: {} {}", answer.status, answer.text());
        assert_eq!(refusal(&answer).1, "UNAVAILABLE");
        repo.push_blob(&noise(3, 20 * MIB)).await;
        repo.assert_pulls("v1", &image).await;
    }

    disk.fill();
    for answer in [
        repo.ask("POST", "blobs/uploads/").await,
        repo.put("v2", image.media_type.as_str(), &image.manifest).await,
        repo.put(image.digest(), image.media_type.as_str(), &image.manifest).await,
        repo.send(
            Call::new("POST", &repo.path(&format!("blobs/uploads/?digest={}", Digest::sha256(b"small"))))
                .body(b"small"),
        )
        .await,
    ] {
        assert!(
            is_full(&answer) || answer.status == 202 || answer.status == 201,
            "{}: {}",
            answer.status,
            answer.text()
        );
    }
    let new = Image::small(9);
    for blob in &new.blobs {
        let path = repo.path(&format!("blobs/uploads/?digest={}", Digest::sha256(blob)));
        let answer = repo.send(Call::new("POST", &path).body(blob)).await;
        assert!(is_full(&answer), "{}: {}", answer.status, answer.text());
    }
    repo.assert_pulls("v1", &image).await;
    assert_eq!(repo.head(&format!("blobs/{}", image.layer(0).0)).await.status, 200);
    let left = files(&data.join("uploads"));
    assert!(left.iter().all(|(_, content)| content.is_empty()), "what is refused takes no room: {}", left.len());
    assert_sound(&data);

    // Nothing has to be restarted, and who deletes is not told to make room first.
    let big = Digest::sha256(&noise(3, 20 * MIB));
    assert_eq!(repo.ask("DELETE", &format!("blobs/{big}")).await.status, 202);
    disk.free();
    let digest = repo.push("v2", &new).await;
    repo.assert_pulls("v1", &image).await;
    repo.assert_pulls(digest, &new).await;
    let tags = repo.get("tags/list").await.json();
    assert!(tags["tags"].as_array().unwrap().iter().any(|tag| tag == "v2"), "{tags}");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while Call::get("/v2/_catalog").send(repo.at).await.json()["repositories"] != serde_json::json!(["team/app"]) {
        assert!(std::time::Instant::now() < deadline, "the index does not recover:\n{}", larder.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    larder.kill();
    let larder = Binary::start(home.path(), &config(&data), "info,larder::access=off");
    let repo = Remote::new(larder.registry.unwrap(), "team/app");
    repo.assert_pulls("v1", &image).await;
    repo.assert_pulls("v2", &new).await;
    drop(larder);
    assert_sound(&data);
}

/// Someone who sends half of a blob and then nothing holds up only those who mean the same upload, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_stands_still_is_in_use_until_its_client_is_gone() {
    use super::support::client::Connection;
    let home = tempfile::tempdir().unwrap();
    let larder = Binary::start(home.path(), &config(&home.path().join("data")), "info,larder::access=off");
    let repo = Remote::new(larder.registry.unwrap(), "team/app");
    let bytes = noise(1, 2 * MIB + 500_000);
    let location = repo.begin().await;
    let mut sleeper = Connection::open(repo.at).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len());
    sleeper.write(head.as_bytes()).await;
    sleeper.write(&bytes[..2 * MIB]).await;
    let impatient = repo.send(Call::get(&location)).await;
    // It may have been asked before the other had its turn.
    if impatient.status != 204 {
        assert_eq!((impatient.status, impatient.header("retry-after").is_some()), (503, true), "{}", impatient.text());
    }
    assert_eq!(repo.push_blob(b"another").await, Digest::sha256(b"another"), "others are not held up");
    drop(sleeper);
    let received = loop {
        let status = repo.send(Call::get(&location)).await;
        if status.status == 204 && status.header("range") != Some("0-0") {
            break status.header("range").unwrap()[2..].parse::<usize>().unwrap() + 1;
        }
    };
    assert_eq!(repo.complete(&location, Digest::sha256(&bytes), &bytes[received..]).await.status, 201);
    assert_eq!(repo.get(&format!("blobs/{}", Digest::sha256(&bytes))).await.body, bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_tags_of_one_push_a_full_disk_sets_all_or_none() {
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = small_disk(home.path()) else { return };
    let data = disk.0.join("data");
    let larder = Binary::start(home.path(), &config(&data), "info,larder::access=off");
    let repo = Remote::new(larder.registry.unwrap(), "team/app");
    let image = Image::small(1);
    repo.push("v1", &image).await;
    let tags: Vec<String> = (0..8).map(|n| format!("tag={n}")).collect();
    let reference = format!("{}?{}", image.digest(), tags.join("&"));
    let (mut refused, mut pages) = (0, 0);
    loop {
        disk.fill();
        disk.give_back(pages);
        let put = repo.put(&reference, image.media_type.as_str(), &image.manifest).await;
        disk.free();
        let listed = repo.get("tags/list").await.json()["tags"].as_array().unwrap().len();
        if put.status == 201 {
            assert_eq!(listed, 9, "with {pages} pages");
            break;
        }
        assert!(is_full(&put), "{} {}", put.status, put.text());
        assert_eq!(listed, 1, "with {pages} pages");
        (refused, pages) = (refused + 1, pages + 1);
    }
    assert!(refused > 4, "only {refused} amounts of room were less than the tags need");
}
