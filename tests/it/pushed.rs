//! What was pushed is kept: through kills, beside damage, and in the order in which it was acknowledged.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder::oci::{Digest, MediaType};
use tokio::sync::Mutex;

use super::support::binary::Binary;
use super::support::client::{Call, Connection};
use super::support::hub::Hub;
use super::support::image::Image;
use super::support::is_soak;
use super::support::larder::{Larder, assert_sound, files};
use super::support::pushing::{Remote, descriptor, index, manifest, refusal};

const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]\ndelete = [\"*\"]";

/// One call whose answer may never come, because the server was killed.
async fn attempt(remote: &Remote, call: Call) -> Option<super::support::client::Answer> {
    let mut connection = Connection::open(remote.at).await.ok()?;
    let answer = connection.call(&call).await;
    (answer.status != 0).then_some(answer)
}

/// Pushes an image; whether all of it was acknowledged.
async fn try_push(repo: &Remote, tag: &str, image: &Image) -> Option<()> {
    for blob in &image.blobs {
        let path = repo.path(&format!("blobs/uploads/?digest={}", Digest::sha256(blob)));
        let answer = attempt(repo, Call::new("POST", &path).body(blob)).await?;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let put = Call::new("PUT", &repo.path(&format!("manifests/{tag}")));
    let put = put.header("Content-Type", image.media_type.as_str()).body(&image.manifest);
    let answer = attempt(repo, put).await?;
    assert_eq!(answer.status, 201, "{}", answer.text());
    Some(())
}

/// Of the real server, with nothing upstream.
fn config(home: &Path) -> String {
    format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[registry]\n\
         listen = \"127.0.0.1:0\"\n{OPEN}\n[[upstream]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\"\n",
        home.join("data")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_pushes_survive_being_killed() {
    let cycles: u64 = if is_soak() { 100 } else { 8 };
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    for cycle in 0..cycles {
        let larder = Binary::start(home.path(), &config, "info,larder::access=off");
        let at = larder.registry.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let pushers = (0..4).map(|pusher| {
            let (acknowledged, over) = (acknowledged.clone(), over.clone());
            tokio::spawn(async move {
                let repo = Remote::new(at, &format!("team/app{pusher}"));
                for n in 0.. {
                    let seed = cycle * 10_000 + pusher * 1_000 + n;
                    let image = Image::oci(seed, &[3000, 40_000]);
                    let tag = format!("v{seed}");
                    if over.load(Ordering::SeqCst) || try_push(&repo, &tag, &image).await.is_none() {
                        return;
                    }
                    acknowledged.lock().await.insert((repo.name.clone(), tag), image);
                }
            })
        });
        let pushers: Vec<_> = pushers.collect();
        let enough = acknowledged.lock().await.len() + 5 + cycle as usize;
        while acknowledged.lock().await.len() < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        larder.kill();
        over.store(true, Ordering::SeqCst);
        join_all(pushers).await.into_iter().for_each(|pusher| pusher.unwrap());
    }
    let larder = Binary::start(home.path(), &config, "info,larder::access=off");
    let acknowledged = acknowledged.lock().await;
    for ((name, tag), image) in acknowledged.iter() {
        Remote::new(larder.registry.unwrap(), name).assert_pulls(tag, image).await;
    }
    assert!(acknowledged.len() >= 5 * cycles as usize);
    assert_sound(&home.path().join("data"));
}

#[tokio::test]
async fn what_is_damaged_is_an_error_and_not_an_absence_and_a_push_heals_it() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let image = Image::small(1);
    let digest = repo.push("v1", &image).await;
    // Whatever changes in a repository, its manifests are read from the disk again.
    let other = index(&[]);
    let forget = || repo.push_manifest("other", &other);
    let file = |digest: &Digest| larder.data().join(format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex()));

    let layer = image.layer(0).0;
    std::fs::write(file(&layer), b"short").unwrap();
    let blob = format!("blobs/{layer}");
    assert_eq!(refusal(&repo.get(&blob).await), (500, "UNKNOWN".into()));
    assert_eq!(repo.get(&blob).await.status, 500, "still: nobody else has it");
    assert_eq!(repo.head(&blob).await.status, 404, "so that a client pushes it again");
    assert_eq!(larder.metric("larder_quarantined_blobs", "").await, 1.0);
    let put = repo.put("v2", image.media_type.as_str(), &image.manifest).await;
    assert_eq!(refusal(&put), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    repo.push_blob(&image.layer(0).1).await;
    repo.assert_pulls("v1", &image).await;

    let mut bytes = image.manifest.to_vec();
    bytes[20] ^= 1;
    std::fs::write(file(&digest), bytes).unwrap();
    assert_eq!(repo.get("manifests/v1").await.body, image.manifest, "it is still known by heart");
    forget().await;
    assert_eq!(repo.get("manifests/v1").await.status, 500);
    assert_eq!(larder.metric("larder_quarantined_blobs", "").await, 2.0);
    assert_eq!(repo.get(&format!("manifests/{digest}")).await.status, 500);
    repo.put("v1", image.media_type.as_str(), &image.manifest).await;
    repo.assert_pulls("v1", &image).await;

    for small in ["_tags/v1".to_owned(), format!("_links/sha256-{}", digest.hex())] {
        let path = larder.data().join("hosted/team/app").join(&small);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[12] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        forget().await;
        assert_eq!(repo.get("manifests/v1").await.status, 500, "{small}");
        assert_eq!(repo.put("v1", image.media_type.as_str(), &image.manifest).await.status, 201, "{small}");
        repo.assert_pulls("v1", &image).await;
    }
}

/// Content and links are moved away behind the server's back, so that whatever is opened is not found.
#[tokio::test]
async fn a_hot_manifest_is_read_from_memory_and_a_push_or_a_delete_is_seen_at_once() {
    let hub = Hub::plain().await;
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let (old, new) = (Image::small(1), Image::small(2));
    let digest = repo.push("v1", &old).await;
    let read = |reference: String| {
        let repo = repo.clone();
        async move {
            let answer = repo.get(&format!("manifests/{reference}")).await;
            (answer.status, answer.body)
        }
    };
    let (of_old, of_new) = ((200, old.manifest.to_vec()), (200, new.manifest.to_vec()));
    for reference in ["v1".to_owned(), digest.to_string()] {
        assert_eq!(read(reference).await, of_old);
    }
    let [here, away] = ["hosted", "hosted-away"].map(|name| larder.data().join(name));
    let [blobs, blobs_away] = ["blobs", "blobs-away"].map(|name| larder.data().join(name));
    let swap = |there: bool| {
        let (from, to) =
            if there { ([&away, &blobs_away], [&here, &blobs]) } else { ([&here, &blobs], [&away, &blobs_away]) };
        from.into_iter().zip(to).for_each(|(from, to)| std::fs::rename(from, to).unwrap());
    };
    swap(false);
    for _ in 0..100 {
        for reference in ["v1".to_owned(), digest.to_string()] {
            assert_eq!(read(reference).await, of_old);
        }
    }
    assert_eq!(read("v2".to_owned()).await.0, 404, "what was never read is looked for");
    swap(true);

    let moved = repo.push("v1", &new).await;
    assert_eq!(read("v1".to_owned()).await, of_new);
    assert_eq!(read(digest.to_string()).await, of_old);
    assert_eq!(repo.ask("DELETE", "manifests/v1").await.status, 202);
    assert_eq!(read("v1".to_owned()).await.0, 404);
    assert_eq!(read(moved.to_string()).await, of_new);
    assert_eq!(repo.ask("DELETE", &format!("manifests/{moved}")).await.status, 202);
    assert_eq!(read(moved.to_string()).await.0, 404);
    larder.restart().await;
    Remote::new(larder.registry(), "team/app").assert_pulls(digest, &old).await;
}

#[tokio::test]
async fn what_is_hosted_is_found_without_the_index() {
    let hub = Hub::plain().await;
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let image = Image::small(1);
    Remote::new(larder.registry(), "team/app").push("v1", &image).await;
    larder.stop().await;
    std::fs::remove_dir_all(larder.data().join("index")).unwrap();
    larder.start().await;
    let repo = Remote::new(larder.registry(), "team/app");
    repo.assert_pulls("v1", &image).await;
    let catalogue = Call::get("/v2/_catalog").send(larder.registry()).await;
    assert_eq!(catalogue.json()["repositories"], serde_json::json!(["team/app"]));
}

/// Each write of a tag and each read of it, with when it began and when it ended: no read may give what another write had
/// replaced before the read began, or what was not yet written when it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_is_a_register() {
    let hub = Hub::plain().await;
    let larder = Arc::new(Larder::hosting(&hub, OPEN).await);
    let repo = Remote::new(larder.registry(), "team/app");
    let image = |writer: usize, n: usize| {
        let mut image = index(&[]);
        image["annotations"] = serde_json::json!({"by": format!("{writer}-{n}")});
        image
    };
    repo.push_manifest("latest", &image(99, 0)).await;
    let writers = join_all((0..4).map(|writer| {
        let repo = repo.clone();
        async move {
            let mut writes = Vec::new();
            for n in 0..12 {
                let began = Instant::now();
                let digest = repo.push_manifest("latest", &image(writer, n)).await;
                writes.push((digest, began, Instant::now()));
            }
            writes
        }
    }));
    let readers = join_all((0..4).map(|_| {
        let repo = repo.clone();
        async move {
            let mut reads = Vec::new();
            for _ in 0..60 {
                let began = Instant::now();
                let read = repo.get("manifests/latest").await;
                assert_eq!(read.status, 200);
                reads.push((Digest::sha256(&read.body), began, Instant::now()));
            }
            reads
        }
    }));
    let (writes, reads) = tokio::join!(writers, readers);
    let writes: Vec<_> = writes.into_iter().flatten().collect();
    for (value, began, ended) in reads.into_iter().flatten() {
        let Some((_, written, acknowledged)) = writes.iter().find(|(digest, ..)| *digest == value) else {
            assert!(writes.iter().all(|(_, _, end)| *end > began), "the first value was read after it was replaced");
            continue;
        };
        assert!(*written < ended, "read before it was written");
        let replaced = writes.iter().any(|(_, start, end)| acknowledged < start && *end < began);
        assert!(!replaced, "read after it was replaced");
    }
}

/// The same while the server is killed: a write whose answer never came may have happened until then, or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_is_a_register_through_kills() {
    struct Write {
        digest: Digest,
        began: Instant,
        acknowledged: Option<Instant>,
    }
    let cycles = if is_soak() { 50 } else { 5 };
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    let (writes, reads) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    for cycle in 0..=cycles {
        let larder = Binary::start(home.path(), &config, "info,larder::access=off");
        let repo = Remote::new(larder.registry.unwrap(), "team/app");
        let over = Arc::new(AtomicBool::new(false));
        let read = |reads: Arc<Mutex<Vec<_>>>, over: Arc<AtomicBool>| {
            let repo = repo.clone();
            async move {
                loop {
                    let began = Instant::now();
                    let Some(read) = attempt(&repo, Call::get(&repo.path("manifests/latest"))).await else { return };
                    if read.complete && read.status == 200 {
                        reads.lock().await.push((Digest::sha256(&read.body), began, Instant::now()));
                    } else {
                        assert!(!read.complete || read.status == 404, "{}", read.text());
                    }
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                }
            }
        };
        if cycle == cycles {
            // What is left in the end.
            over.store(true, Ordering::SeqCst);
            read(reads.clone(), over).await;
            break;
        }
        let writers = (0..4).map(|writer| {
            let (repo, writes) = (repo.clone(), writes.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    let mut image = index(&[]);
                    image["annotations"] = serde_json::json!({"by": format!("{cycle}-{writer}-{n}")});
                    let bytes = image.to_string().into_bytes();
                    let put = Call::new("PUT", &repo.path("manifests/latest"));
                    let put = put.header("Content-Type", MediaType::OciIndex.as_str()).body(&bytes);
                    let (digest, began) = (Digest::sha256(&bytes), Instant::now());
                    let answer = attempt(&repo, put).await;
                    assert!(answer.as_ref().is_none_or(|answer| answer.status == 201));
                    let acknowledged = answer.as_ref().map(|_| Instant::now());
                    writes.lock().await.push(Write { digest, began, acknowledged });
                    if answer.is_none() {
                        return;
                    }
                }
            })
        });
        let mut tasks: Vec<_> = writers.collect();
        tasks.extend((0..2).map(|_| tokio::spawn(read(reads.clone(), over.clone()))));
        while writes.lock().await.len() < 40 * (cycle + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        larder.kill();
        join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    }
    let (writes, reads) = (writes.lock().await, reads.lock().await);
    for (value, began, ended) in reads.iter() {
        let write = writes.iter().find(|write| write.digest == *value).expect("nobody wrote that");
        assert!(write.began < *ended, "read before it was written");
        let Some(acknowledged) = write.acknowledged else { continue };
        let replaced =
            writes.iter().any(|other| other.acknowledged.is_some_and(|end| acknowledged < other.began && end < *began));
        assert!(!replaced, "read after it was replaced");
    }
    assert!(reads.len() > 2 * cycles, "it was hardly read: {}", reads.len());
}

#[tokio::test]
async fn numbers_and_nesting_of_a_clients_own_cost_nothing() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let announced = Call::new("PUT", &repo.path("manifests/x")).header("Content-Length", "1073741824");
    let answer = repo.send(announced.body(&vec![b' '; 5 << 20])).await;
    assert_eq!(answer.status, 413, "after 4 MiB, whatever was announced");
    let many: Vec<_> = (0..20_000).map(|n| descriptor("x/y", format!("{n}").as_bytes())).collect();
    let many = manifest(&descriptor("x/y", b"{}"), &many).to_string();
    let answer = repo.put("x", MediaType::OciManifest.as_str(), many.as_bytes()).await;
    assert_eq!(refusal(&answer), (400, "MANIFEST_INVALID".into()));
    let location = repo.begin().await;
    let far =
        Call::new("PATCH", &location).header("Content-Range", "9223372036854775806-9223372036854775806").body(b"x");
    assert_eq!(repo.send(far).await.status, 416);
    assert!(files(&larder.data().join("uploads")).iter().all(|(_, content)| content.len() < 1000));
}
