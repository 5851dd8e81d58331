//! A disk that looks after itself: the limit holds, whole images go, the least recently used first, and what cannot be
//! kept is served all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::oci::Digest;

use crate::support::client::{Answer, Call};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound, files, used};

const MIB: usize = 1 << 20;

fn manifest(repository: &str, reference: impl ToString) -> String {
    format!("/v2/{repository}/manifests/{}", reference.to_string())
}

fn blob(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

async fn pull(larder: &Larder, repository: &str, image: &Image) -> Vec<Answer> {
    let mut answers = vec![larder.get(&manifest(repository, "latest")).await];
    assert_eq!((answers[0].status, &answers[0].body[..]), (200, &image.manifest[..]));
    for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
        let answer = larder.get(&blob(repository, digest)).await;
        assert!(answer.status == 200 && answer.complete && answer.body == *content, "{}", answer.status);
        answers.push(answer);
    }
    larder.until_idle().await;
    answers
}

fn is_here(larder: &Larder, image: &Image) -> bool {
    let here = |digest: &Digest| {
        let hex = digest.hex();
        larder.data().join("blobs/sha256").join(&hex[..2]).join(&hex).exists()
    };
    here(&image.digest()) && image.blob_digests().iter().all(here)
}

fn cache(max_size: &str) -> String {
    format!("max_size = {max_size:?}\nmin_free = \"0\"\n")
}

#[tokio::test]
async fn the_least_recently_used_image_goes_and_whole() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, &cache("3MiB"), "").await;
    let images: Vec<Image> = (0..3).map(|seed| Image::oci(seed + 1, &[MIB, 300_000])).collect();
    let names = ["library/one", "library/two", "library/three"];
    for (name, image) in names.iter().zip(&images) {
        hub.push(name, "latest", image);
    }
    pull(&larder, names[0], &images[0]).await;
    larder.clock.advance(Duration::from_secs(120));
    pull(&larder, names[1], &images[1]).await;
    larder.clock.advance(Duration::from_secs(120));
    // A range of a layer is a use, too.
    let layer = blob(names[0], &images[0].layer(0).0);
    assert_eq!(Call::get(&layer).header("Range", "bytes=0-9").send(larder.mirror()).await.status, 206);
    larder.clock.advance(Duration::from_secs(120));
    pull(&larder, names[2], &images[2]).await;

    assert!(is_here(&larder, &images[0]) && is_here(&larder, &images[2]));
    let gone = images[1].blob_digests().into_iter().chain([images[1].digest()]);
    for digest in gone {
        assert!(!files(&larder.data().join("blobs")).iter().any(|(path, _)| path.ends_with(digest.hex())), "{digest}");
    }
    assert!(!larder.data().join("cached/docker.io/library/two/_tags/latest").exists());
    assert_eq!(larder.metric("larder_cache_evictions_total", "").await, 1.0);
    assert!(larder.metric("larder_cache_bytes", "").await <= larder.metric("larder_cache_max_bytes", "").await);
    // And it comes again.
    pull(&larder, names[1], &images[1]).await;
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_pinned_image_stays_and_a_layer_stays_as_long_as_one_image_needs_it() {
    let hub = Hub::plain().await;
    let pinned = format!("{}pin = [\"library/pinned:*\"]\n", cache("4MiB"));
    let larder = Larder::configured(&hub, &pinned, "").await;
    let image = Image::oci(11, &[MIB]);
    hub.push("library/pinned", "latest", &image);
    // The same layers under another name: only its manifest's links go with it.
    hub.push("library/double", "latest", &image);
    pull(&larder, "library/pinned", &image).await;
    pull(&larder, "library/double", &image).await;
    for seed in 0..6 {
        let name = format!("library/n{seed}");
        let image = Image::oci(20 + seed, &[MIB, 100_000]);
        hub.push(&name, "latest", &image);
        larder.clock.advance(Duration::from_secs(120));
        pull(&larder, &name, &image).await;
    }
    assert!(is_here(&larder, &image));
    assert!(!larder.data().join("cached/docker.io/library/double/_tags/latest").exists(), "not pinned, and the oldest");
    hub.clear();
    let again = larder.get(&blob("library/pinned", &image.layer(0).0)).await;
    let asked = hub.count(Target::Blob) + hub.count(Target::Cdn);
    assert_eq!((again.header("x-larder-cache"), asked), (Some("hit"), 0));
}

#[tokio::test]
async fn content_that_no_image_needs_yet_goes_after_the_images_and_keeps_none_out() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, &cache("4MiB"), "").await;
    // Whoever has the manifest already asks for layers alone. All of these stay below the mark from which some go unasked.
    let alone = async |seed: u64| {
        let digest = hub.add_blob("library/loose", noise(seed, 950_000));
        assert!(larder.get(&blob("library/loose", &digest)).await.complete);
        larder.until_idle().await;
        larder.data().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    };
    let (old, new, last) = (Image::oci(41, &[MIB]), Image::oci(42, &[MIB + MIB / 2]), Image::oci(43, &[MIB]));
    for (name, image) in [("library/old", &old), ("library/new", &new), ("library/last", &last)] {
        hub.push(name, "latest", image);
    }
    pull(&larder, "library/old", &old).await;
    let mut loose = vec![alone(51).await, alone(52).await];
    pull(&larder, "library/new", &new).await;
    assert!(!is_here(&larder, &old) && is_here(&larder, &new) && loose.iter().all(|file| file.exists()));

    loose.extend([alone(53).await, alone(54).await]);
    assert!(!is_here(&larder, &new) && loose.iter().all(|file| file.exists()));
    pull(&larder, "library/last", &last).await;
    assert!(is_here(&larder, &last), "the limit is full of what nobody needs");
    assert!(loose.iter().filter(|file| file.exists()).count() >= 2, "and no more of it goes than has to");
}

#[tokio::test]
async fn what_finds_no_room_is_passed_on_verified_and_not_kept() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, &cache("1MiB"), "").await;
    let image = Image::oci(31, &[3 * MIB, 20_000]);
    hub.push("library/large", "latest", &image);
    for _ in 0..2 {
        let answers = pull(&larder, "library/large", &image).await;
        assert_eq!(answers[2].header("x-larder-cache"), Some("bypass"));
    }
    let (layer, content) = image.layer(0);
    let part = Call::get(&blob("library/large", &layer)).header("Range", "bytes=1000000-1999999");
    let part = part.send(larder.mirror()).await;
    assert_eq!((part.status, &part.body[..]), (206, &content[1_000_000..2_000_000]));
    assert!(used(&larder.data()) <= MIB as u64);
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_wrong_blob_that_is_passed_on_never_ends_well() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, &cache("1MiB"), "").await;
    let image = Image::oci(32, &[3 * MIB]);
    hub.push("library/large", "latest", &image);
    larder.get(&manifest("library/large", "latest")).await;
    larder.until_idle().await;
    hub.fault(Target::Cdn, Fault::WrongBytes);
    let answer = larder.get(&blob("library/large", &image.layer(0).0)).await;
    assert!(!answer.complete, "the last bytes of what is wrong are not sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_at_every_moment_under_a_working_set_four_times_as_large() {
    const LIMIT: u64 = 8 << 20;
    let hub = Hub::plain().await;
    let mut larder = Larder::configured(&hub, &cache("8MiB"), "").await;
    let images: Vec<Image> =
        (0..24).map(|seed| Image::oci(100 + seed, &[900_000, 300_000 + 1000 * seed as usize, 64_000])).collect();
    let name = |n: usize| format!("library/i{n}");
    for (n, image) in images.iter().enumerate() {
        hub.push(&name(n), "latest", image);
    }
    let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sampler = {
        let (stop, most, data) = (stop.clone(), most.clone(), larder.data());
        std::thread::spawn(move || {
            let mut samples = 0;
            while !stop.load(Ordering::SeqCst) {
                most.fetch_max(used(&data), Ordering::SeqCst);
                samples += 1;
            }
            samples
        })
    };
    let mut state = 7u64;
    for round in 0..60 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = (state >> 33) as usize % images.len();
        pull(&larder, &name(n), &images[n]).await;
        larder.clock.advance(Duration::from_secs(61));
        if round == 30 {
            larder.restart().await;
        }
        let figure = larder.metric("larder_cache_bytes", "").await;
        assert!(figure <= LIMIT as f64, "{figure}");
    }
    stop.store(true, Ordering::SeqCst);
    let samples = sampler.join().unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!(most <= LIMIT, "{most} in one of {samples} samples");
    assert!(larder.metric("larder_cache_evictions_total", "").await > 10.0);
    larder.stop().await;
    assert_sound(&larder.data());
}
