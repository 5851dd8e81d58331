//! Backups of a server that runs: clients push, delete, and garbage is collected while it is read; and the program that
//! makes the backup is killed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use larder::hosted::GRACE;
use larder::oci::Digest;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, RwLock};

use super::support::binary;
use super::support::client::{Call, get};
use super::support::hub::Hub;
use super::support::image::Image;
use super::support::larder::{Larder, assert_sound, files};
use super::support::pushing::Remote;

const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]\ndelete = [\"*\"]";

/// `larder backup` of the server whose admin address that is, as a process of its own.
async fn backup(directory: &Path, admin: SocketAddr, options: &[&str]) -> Output {
    let mut command = binary::larder();
    command.arg("backup").arg(directory).args(["--json", "--admin", &format!("http://{admin}")]).args(options);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A server that is made of what a backup has.
async fn restored(hub: &Hub, directory: &Path) -> Larder {
    let mut larder = Larder::hosting(hub, OPEN).await;
    larder.stop().await;
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), format!("data_dir = {:?}\n", larder.data())).unwrap();
    let mut command = binary::larder();
    command.arg("restore").arg(directory).arg("--json").arg("--config").arg(config.path());
    report(&command.output().unwrap());
    larder.start().await;
    larder
}

/// Pulls all that is below a tag by what manifests say.
async fn assert_whole(repo: &Remote, reference: &str) {
    let answer = repo.get(&format!("manifests/{reference}")).await;
    assert_eq!(answer.status, 200, "{} {reference}: {}", repo.name, answer.text());
    let manifest = answer.json();
    for child in manifest["manifests"].as_array().into_iter().flatten() {
        Box::pin(assert_whole(repo, child["digest"].as_str().unwrap())).await;
    }
    for descriptor in manifest["layers"].as_array().into_iter().flatten().chain(manifest.get("config")) {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let answer = repo.get(&format!("blobs/{digest}")).await;
        assert!(answer.status == 200 && digest.matches(&answer.body), "{} {reference}: {digest}", repo.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_sixteen_clients_push_and_delete_nothing_acknowledged_before_is_missing() {
    const PUSHERS: u64 = 16;
    const ROUNDS: usize = 3;
    let hub = Hub::plain().await;
    let larder = Arc::new(Larder::hosting(&hub, OPEN).await);
    let (between_pushes, over) = (Arc::new(RwLock::new(())), Arc::new(AtomicBool::new(false)));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let pushers = (0..PUSHERS).map(|pusher| {
        let (larder, between_pushes) = (larder.clone(), between_pushes.clone());
        let (over, acknowledged) = (over.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let repo = Remote::new(larder.registry(), &format!("team/app{pusher}"));
            for n in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let seed = 100_000 + pusher * 1_000 + n;
                let _pushing = between_pushes.read().await;
                let kept = match n % 3 {
                    0 => Image::oci(seed, &[40_000, 3_000]),
                    1 => Image::index(&[Image::oci(seed, &[20_000]), Image::docker(seed + 500_000, &[9_000])]),
                    _ => Image::docker(seed, &[30_000]),
                };
                repo.push(&format!("v{n}"), &kept).await;
                acknowledged.lock().await.push((repo.name.clone(), format!("v{n}"), kept));
                // What is gone again soon is in the way of whoever lists it in between.
                let passing = Image::oci(seed + 900_000, &[50_000]);
                let digest = repo.push("passing", &passing).await;
                assert_eq!(repo.ask("DELETE", &format!("manifests/{digest}")).await.status, 202);
            }
        })
    });
    let pushers: Vec<_> = pushers.collect();
    let collector = {
        let (larder, between_pushes, over) = (larder.clone(), between_pushes.clone(), over.clone());
        tokio::spawn(async move {
            let mut collected = 0;
            while !over.load(Ordering::SeqCst) {
                larder.hosted().garbage().await.unwrap();
                let none_pushes = between_pushes.write().await;
                larder.clock.advance(GRACE);
                drop(none_pushes);
                collected += larder.hosted().collect_garbage(GRACE).await.unwrap().blobs;
            }
            collected
        })
    };
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("backup");
    let mut before = Vec::new();
    for round in 1..=ROUNDS {
        while acknowledged.lock().await.len() < PUSHERS as usize * round {
            tokio::task::yield_now().await;
        }
        before = acknowledged.lock().await.clone();
        let said = report(&backup(&directory, larder.admin(), &["--prune"]).await);
        assert_eq!(said["damaged"], Value::Array(Vec::new()), "{said}");
        assert!(said["tags"].as_u64().unwrap() >= before.len() as u64, "{said}");
    }
    over.store(true, Ordering::SeqCst);
    for pusher in pushers {
        pusher.await.unwrap();
    }
    collector.await.unwrap();

    let other = restored(&hub, &directory).await;
    for (name, tag, image) in &before {
        Remote::new(other.registry(), name).assert_pulls(tag, image).await;
    }
    for pusher in 0..PUSHERS {
        let repo = Remote::new(other.registry(), &format!("team/app{pusher}"));
        for tag in repo.get("tags/list").await.json()["tags"].as_array().unwrap() {
            assert_whole(&repo, tag.as_str().unwrap()).await;
        }
    }
    assert_sound(&other.data());
}

/// A way to the server's admin address on which after so many requests nothing comes any more.
async fn way_that_ends(to: SocketAddr, requests: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let passes = counted.fetch_add(1, Ordering::SeqCst) < requests;
            tokio::spawn(async move {
                if passes {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                } else {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (at, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_killed_leaves_the_one_before_and_the_next_goes_on_with_it() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let (old, new) = (Image::oci(201, &[90_000, 80_000]), Image::oci(202, &[70_000; 12]));
    let repo = Remote::new(larder.registry(), "golden/ui");
    repo.push("v1", &old).await;
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("backup");
    report(&backup(&directory, larder.admin(), &[]).await);
    let index = fs::read(directory.join("index.json")).unwrap();
    repo.push("v1", &new).await;

    // Two lists, a manifest, and then a few blobs of the thirteen.
    let requests = 8;
    let (way, seen) = way_that_ends(larder.admin(), requests).await;
    let mut command = binary::larder();
    command.arg("backup").arg(&directory).args(["--admin", &format!("http://{way}")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while seen.load(Ordering::SeqCst) <= requests {
        tokio::task::yield_now().await;
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));

    assert_eq!(fs::read(directory.join("index.json")).unwrap(), index);
    let other = restored(&hub, &directory).await;
    Remote::new(other.registry(), "golden/ui").assert_pulls("v1", &old).await;
    let said = report(&backup(&directory, larder.admin(), &["--prune"]).await);
    let all = 1 + new.blobs.len() as u64;
    let copied = said["copied_blobs"].as_u64().unwrap();
    assert!(copied < all, "what had come is not copied again: {said}");
    assert!(files(&directory.join("larder/partial")).is_empty());
    let other = restored(&hub, &directory).await;
    Remote::new(other.registry(), "golden/ui").assert_pulls("v1", &new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_private_leaves_by_the_admin_address_only_for_who_may_change_things() {
    let hub = Hub::plain().await;
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let token = "0123456789abcdef-of-the-operator";
    let file = larder.restart_with_token(token).await;
    let image = Image::small(301);
    let repo = Remote::new(larder.registry(), "golden/ui");
    let digest = repo.push("v1", &image).await;
    let content = format!("/api/backup/content/{digest}?repository=golden/ui&from=0");
    for path in ["/api/backup/repositories", "/api/backup/repositories/golden/ui", content.as_str()] {
        assert!(matches!(get(larder.admin(), path).await.status, 404 | 405), "{path}");
        let without = Call::new("POST", path).header("X-Larder-Request", "1").send(larder.admin()).await;
        assert_eq!(without.status, 401, "{path}");
        let with = Call::new("POST", path).header("X-Larder-Request", "1");
        let with = with.header("Authorization", &format!("Bearer {token}")).send(larder.admin()).await;
        assert_eq!(with.status, 200, "{path}: {}", with.text());
    }
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("backup");
    let refused = backup(&directory, larder.admin(), &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--admin-token-file"));
    let options = ["--admin-token-file", file.to_str().unwrap()];
    assert_eq!(report(&backup(&directory, larder.admin(), &options).await)["tags"], 1);
    assert!(!directory.join("larder/registry.toml").exists(), "another server's rules are not this configuration's");
}
