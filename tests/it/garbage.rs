//! Garbage is collected while pushes go on: nothing that somebody needs is lost, and nothing that nobody needs stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::hosted::GRACE;
use larder::oci::Digest;
use tokio::sync::RwLock;

use super::support::client::Call;
use super::support::hub::Hub;
use super::support::image::Image;
use super::support::is_soak;
use super::support::larder::{Larder, assert_sound, files};
use super::support::pushing::{Remote, descriptor, manifest};

const OPEN: &str =
    "anonymous = \"push\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"*\"]\ndelete = [\"*\"]";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn blobs(larder: &Larder) -> usize {
    files(&larder.data().join("blobs")).len()
}

/// Everything that is garbage now is found, is older than the grace period, and is collected, blobs after their links.
async fn collect_all(larder: &Larder) {
    for _ in 0..3 {
        larder.hosted().garbage().await.unwrap();
        larder.clock.advance(GRACE);
        larder.hosted().collect_garbage(GRACE).await.unwrap();
    }
}

#[tokio::test]
async fn what_no_manifest_names_is_collected_after_the_grace_period_and_nothing_else() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let (image, cached) = (Image::index(&[Image::small(1), Image::small(2)]), Image::small(3));
    repo.push("v1", &image).await;
    hub.push("library/alpine", "latest", &cached);
    Remote::new(larder.mirror(), "library/alpine").assert_pulls("latest", &cached).await;
    larder.until_idle().await;
    let needed = blobs(&larder);
    let orphan = repo.push_blob(b"nobody names this").await;
    let hosted = larder.hosted();

    // Listing removes nothing, and says since when.
    let listed = hosted.garbage().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    larder.clock.advance(GRACE / 2);
    assert_eq!(hosted.garbage().await.unwrap()[0].age.as_secs(), GRACE.as_secs() / 2);
    assert_eq!(hosted.collect_garbage(GRACE).await.unwrap().links, 0, "not yet");
    // Someone who asks for it begins the period anew.
    assert_eq!(repo.head(&format!("blobs/{orphan}")).await.status, 200);
    larder.clock.advance(GRACE / 2 + Duration::from_secs(1));
    assert_eq!(hosted.collect_garbage(GRACE).await.unwrap().links, 0);
    larder.clock.advance(GRACE);
    let collected = hosted.collect_garbage(GRACE).await.unwrap();
    assert_eq!((collected.links, collected.blobs), (1, 0), "the blob goes after its link");
    assert_eq!(repo.head(&format!("blobs/{orphan}")).await.status, 404);
    collect_all(&larder).await;
    assert_eq!(blobs(&larder), needed);
    repo.assert_pulls("v1", &image).await;

    // A deleted image gives its room back; an index's images are deleted one by one.
    for digest in [&image, &image.children[0], &image.children[1]].map(|image| Digest::sha256(&image.manifest)) {
        assert_eq!(repo.ask("DELETE", &format!("manifests/{digest}")).await.status, 202);
    }
    collect_all(&larder).await;
    assert_eq!(blobs(&larder), 1 + cached.blobs.len(), "what is cached is not garbage");
    hub.stop().await;
    Remote::new(larder.mirror(), "library/alpine").assert_pulls("latest", &cached).await;
}

#[tokio::test]
async fn what_is_deleted_is_not_counted_against_a_cache_that_has_no_room_for_it() {
    let hub = Hub::plain().await;
    let cache = "max_size = \"1MiB\"\nmin_free = \"0\"\n";
    let larder = Larder::configured(&hub, cache, &format!("[registry]\nlisten = \"127.0.0.1:0\"\n{OPEN}\n")).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let (ours, cached) = (Image::oci(1, &[700_000]), Image::oci(2, &[700_000]));
    let digest = repo.push("v1", &ours).await;
    hub.push("library/alpine", "latest", &cached);
    let alpine = Remote::new(larder.mirror(), "library/alpine");
    alpine.assert_pulls("latest", &cached).await;
    larder.until_idle().await;
    let cached_bytes = larder.metric("larder_cache_bytes", "cached").await;
    assert_eq!(repo.ask("DELETE", &format!("manifests/{digest}")).await.status, 202);
    larder.hosted().garbage().await.unwrap();
    larder.clock.advance(GRACE);
    assert_eq!(larder.hosted().collect_garbage(GRACE).await.unwrap().links, 2);
    let counted = larder.metric("larder_cache_bytes", "cached").await;
    let released = larder.metric("larder_released_bytes", "").await;
    assert!(counted <= f64::from(1 << 20), "{counted}");
    assert!(released >= 700_000.0, "{released}");
    collect_all(&larder).await;
    assert_eq!(larder.metric("larder_released_bytes", "").await, 0.0);
    assert_eq!(larder.metric("larder_cache_bytes", "cached").await, cached_bytes);
    hub.stop().await;
    alpine.assert_pulls("latest", &cached).await;
}

#[tokio::test]
async fn while_something_is_uploaded_to_a_repository_its_blobs_wait_for_their_manifest() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let first = repo.push_blob(b"the first layer").await;
    let slow = repo.begin().await;
    collect_all(&larder).await;
    collect_all(&larder).await;
    assert_eq!(repo.head(&format!("blobs/{first}")).await.status, 200);
    assert_eq!(repo.complete(&slow, Digest::sha256(b"the second"), b"the second").await.status, 201);
    collect_all(&larder).await;
    assert_eq!(blobs(&larder), 0, "nobody ever named them");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_keeps_all_that_it_may_name() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "team/app");
    let image = Image::small(1);
    let digest = repo.push("v1", &image).await;
    let file = larder.data().join(format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex()));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    collect_all(&larder).await;
    assert_eq!(blobs(&larder), 1 + image.blobs.len(), "nothing is concluded from what cannot be read");
}

/// Pushers skip what a HEAD finds and mount what another repository has, while what nobody named an hour ago is collected
/// under their feet. The clock moves only between pushes, so that no push is longer than the grace period.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_ever_misses_what_it_was_told_is_there() {
    const PUSHERS: usize = 4;
    // Links that have to be collected meanwhile, and what a pusher does for that at most.
    let (enough, most_rounds) = if is_soak() { (2_000, 200_000) } else { (20, 2_000) };
    let hub = Hub::plain().await;
    let larder = Arc::new(Larder::hosting(&hub, OPEN).await);
    let (between_pushes, done) = (Arc::new(RwLock::new(())), Arc::new(AtomicBool::new(false)));
    let collected = Arc::new(AtomicU64::new(0));
    let push = |pusher: usize| {
        let (larder, between_pushes, collected) = (larder.clone(), between_pushes.clone(), collected.clone());
        async move {
            let repo = Remote::new(larder.registry(), &format!("team/app{pusher}"));
            let other = format!("team/app{}", (pusher + 1) % PUSHERS);
            let mut skipped = 0;
            for round in 0..most_rounds {
                if collected.load(Ordering::SeqCst) >= enough {
                    break;
                }
                let _pushing = between_pushes.read().await;
                let layers: Vec<Vec<u8>> =
                    (0..3).map(|n| format!("layer {}", (round * 7 + n * 3 + pusher) % 30).into_bytes()).collect();
                for bytes in layers.iter().map(Vec::as_slice).chain([b"{}".as_slice()]) {
                    let digest = Digest::sha256(bytes);
                    if repo.head(&format!("blobs/{digest}")).await.status == 200 {
                        skipped += 1;
                        continue;
                    }
                    let mount = repo.ask("POST", &format!("blobs/uploads/?mount={digest}&from={other}")).await;
                    if mount.status == 202 {
                        let location = mount.header("location").unwrap();
                        assert_eq!(repo.complete(location, digest, bytes).await.status, 201);
                    }
                }
                let layers: Vec<_> = layers.iter().map(|layer| descriptor(LAYER, layer)).collect();
                let mut image = manifest(&descriptor(CONFIG, b"{}"), &layers);
                image["annotations"] = serde_json::json!({"round": round.to_string()});
                let digest = repo.push_manifest("latest", &image).await;
                for layer in &layers {
                    let got = repo.get(&format!("blobs/{}", layer["digest"].as_str().unwrap())).await;
                    assert_eq!(got.status, 200, "what was just acknowledged can be pulled");
                }
                // Most do not last.
                if round % 3 != 2 {
                    assert_eq!(repo.ask("DELETE", &format!("manifests/{digest}")).await.status, 202);
                }
            }
            skipped
        }
    };
    let collecting = {
        let (larder, between_pushes, done) = (larder.clone(), between_pushes.clone(), done.clone());
        let collected = collected.clone();
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let _all_pushes_are_over = between_pushes.write().await;
                larder.clock.advance(GRACE / 2);
                drop(_all_pushes_are_over);
                let now = larder.hosted().collect_garbage(GRACE).await.unwrap();
                collected.fetch_add(now.links, Ordering::SeqCst);
            }
        })
    };
    let skipped: usize = futures_util::future::join_all((0..PUSHERS).map(push)).await.into_iter().sum();
    done.store(true, Ordering::SeqCst);
    collecting.await.unwrap();
    let collected = collected.load(Ordering::SeqCst);
    assert!(skipped > 0 && collected >= enough, "it was not put to the test: {skipped} skipped, {collected} collected");
    assert_sound(&larder.data());

    for pusher in 0..PUSHERS {
        let repo = Remote::new(larder.registry(), &format!("team/app{pusher}"));
        let list = Call::get(&repo.path("tags/list")).send(repo.at).await;
        assert!(list.status == 404 || list.json()["tags"].as_array().unwrap().len() <= 1);
    }
}
