//! Disks that give back other bytes than they were given: none of them leaves as a whole, what upstream has is healed
//! within the request that finds it, and what only we have is said to be lost.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use larder::oci::Digest;

use crate::support::binary::{self, Binary};
use crate::support::client::{Answer, Call};
use crate::support::hub::{Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound};

const REPO: &str = "library/alpha";
const MIB: usize = 1 << 20;
const GOLDEN: &str =
    "anonymous = \"push\"\n[[registry.repository]]\npattern = \"golden/**\"\npull = [\"*\"]\npush = [\"*\"]\n";

fn url(digest: &Digest) -> String {
    format!("/v2/{REPO}/blobs/{digest}")
}

fn file(data: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    data.join("blobs/sha256").join(&hex[..2]).join(hex)
}

/// One bit becomes another.
fn flip(path: &Path, at: usize) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

fn quarantined(data: &Path) -> usize {
    fs::read_dir(data.join("quarantine")).unwrap().count()
}

/// A hundred blobs that are cached, with one wrong bit in each, and a server that has just started.
async fn hundred_rotten(hub: &Hub, larder: &mut Larder) -> Vec<(Digest, Bytes, usize)> {
    let mut blobs = Vec::new();
    for seed in 0..100usize {
        let size = [1, 700, 65_536, 65_537, 200_000, 700_000][seed % 6] + seed * usize::from(seed % 6 > 3);
        let content = noise(9_000 + seed as u64, size);
        let digest = hub.add_blob(REPO, content.clone());
        assert!(larder.get(&url(&digest)).await.complete);
        // At the beginning, at the end, and in between.
        blobs.push((digest, content, [0, size - 1, size / 2, size / 3][seed % 4]));
    }
    larder.stop().await;
    for (digest, _, at) in &blobs {
        flip(&file(&larder.data(), digest), *at);
    }
    hub.clear();
    larder.start().await;
    blobs
}

fn is_whole(answer: &Answer) -> bool {
    answer.complete && matches!(answer.status, 200 | 206)
}

#[tokio::test]
async fn a_wrong_bit_in_each_of_a_hundred_blobs_is_healed_within_the_request_that_finds_it() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    let blobs = hundred_rotten(&hub, &mut larder).await;
    for (number, (digest, content, at)) in blobs.iter().enumerate() {
        // Half of them are asked for by a range that has the bit in it.
        let start = at.saturating_sub(10);
        let (call, wanted) = match number % 2 {
            0 => (Call::get(&url(digest)), &content[..]),
            _ => (Call::get(&url(digest)).header("Range", &format!("bytes={start}-")), &content[start..]),
        };
        let answer = call.send(larder.mirror()).await;
        assert!(is_whole(&answer) && answer.body == wanted, "{number}: {} {}", answer.status, answer.body.len());
    }
    larder.until_idle().await;
    assert_eq!((hub.count(Target::Cdn), quarantined(&larder.data())), (100, 100));
    assert_eq!(larder.metric("larder_quarantined_blobs", "").await, 100.0);
    assert_eq!(larder.metric("larder_digest_mismatches_total", "disk").await, 100.0);
    larder.stop().await;
    assert_sound(&larder.data());
}

#[tokio::test]
async fn while_upstream_is_gone_nothing_wrong_is_sent_whole_and_it_is_healed_when_it_is_back() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    let blobs = hundred_rotten(&hub, &mut larder).await;
    hub.stop().await;
    for (number, (digest, content, at)) in blobs.iter().enumerate() {
        let answer = larder.get(&url(digest)).await;
        assert!(!is_whole(&answer), "{number} of {}: {}", content.len(), answer.status);
        if answer.status == 200 {
            assert!(content.starts_with(&answer.body) && answer.body.len() <= *at, "{number}: a wrong byte left");
        }
    }
    assert_eq!(quarantined(&larder.data()), 100);
    hub.start_again().await;
    larder.until_up().await;
    for (digest, content, _) in &blobs {
        assert!(larder.get(&url(digest)).await.body == *content);
    }
}

#[tokio::test]
async fn damage_far_inside_is_healed_while_the_client_reads_over_it() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    let content = noise(9_200, 9 * MIB);
    let digest = hub.add_blob(REPO, content.clone());
    assert!(larder.get(&url(&digest)).await.complete);
    larder.restart().await;
    flip(&file(&larder.data(), &digest), 7 * MIB);
    let answer = larder.get(&url(&digest)).await;
    assert!(answer.complete && answer.body == content, "{} bytes", answer.body.len());
    assert_eq!((quarantined(&larder.data()), hub.count(Target::Cdn)), (1, 2));
}

#[tokio::test]
async fn what_is_in_memory_is_looked_at_again_when_its_time_is_over_or_always() {
    let hub = Hub::plain().await;
    for (setting, wait) in [("verify = \"15m\"", 900), ("verify = \"always\"", 0)] {
        let larder = Larder::configured(&hub, setting, "").await;
        let content = noise(9_300 + wait, 2 * MIB);
        let digest = hub.add_blob(REPO, content.clone());
        assert!(larder.get(&url(&digest)).await.complete);
        flip(&file(&larder.data(), &digest), MIB);
        larder.clock.advance(Duration::from_secs(wait));
        let answer = larder.get(&url(&digest)).await;
        assert!(answer.complete && answer.body == content, "{setting}");
        assert_eq!(quarantined(&larder.data()), 1, "{setting}");
    }
}

#[tokio::test]
async fn a_wrong_checksum_is_told_from_a_wrong_blob() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    let (content, other) = (noise(9_400, 3 * MIB), noise(9_401, 3 * MIB));
    let [digest, other_digest] = [&content, &other].map(|content| hub.add_blob(REPO, content.clone()));
    for digest in [&digest, &other_digest] {
        assert!(larder.get(&url(digest)).await.complete);
    }
    let sums = |digest| file(&larder.data(), digest).with_extension("crc");
    let (ours, theirs) = (sums(&digest), sums(&other_digest));
    larder.stop().await;
    let right = fs::read(&ours).unwrap();
    // Sound in itself, and those of another blob.
    fs::copy(&theirs, &ours).unwrap();
    larder.start().await;
    hub.clear();
    assert!(larder.get(&url(&digest)).await.body == content);
    assert_eq!((quarantined(&larder.data()), hub.count(Target::Cdn)), (0, 0));
    assert_eq!(fs::read(&ours).unwrap(), right, "they were made anew");
    // Missing or damaged ones are no error.
    larder.stop().await;
    flip(&ours, 20);
    fs::remove_file(&theirs).unwrap();
    larder.start().await;
    assert!(larder.get(&url(&digest)).await.body == content);
    assert!(larder.get(&url(&other_digest)).await.body == other);
    assert_eq!((quarantined(&larder.data()), hub.count(Target::Cdn)), (0, 0));
}

async fn scrub(larder: &Larder, query: &str) -> serde_json::Value {
    let begun =
        Call::new("POST", &format!("/api/scrub{query}")).header("X-Larder-Request", "1").send(larder.admin()).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    loop {
        let progress = Call::get("/api/scrub").send(larder.admin()).await.json();
        if progress["running"] == false {
            return progress;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_scrub_finds_all_damage_fetches_it_anew_and_makes_missing_checksums() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    let image = Image::oci(9_500, &[300_000, 90_000]);
    hub.push(REPO, "latest", &image);
    let tag = format!("/v2/{REPO}/manifests/latest");
    assert_eq!(larder.get(&tag).await.status, 200);
    for digest in image.blob_digests() {
        assert!(larder.get(&url(&digest)).await.complete);
    }
    let blobs = hundred_rotten(&hub, &mut larder).await;
    flip(&file(&larder.data(), &image.digest()), 5);
    flip(&file(&larder.data(), &image.layer(0).0), 299_999);
    let sums = file(&larder.data(), &image.layer(1).0).with_extension("crc");
    fs::remove_file(&sums).unwrap();
    let tag_file = larder.data().join("cached/docker.io/library/alpha/_tags/latest");
    flip(&tag_file, 3);

    let found = scrub(&larder, "").await;
    assert_eq!((&found["damaged"], &found["repaired"], &found["small_files"]), (&102.into(), &0.into(), &1.into()));
    assert!(sums.exists() && !tag_file.exists(), "{found}");
    assert_eq!(larder.metric("larder_scrub_blobs_total", "damaged").await, 102.0);
    assert_eq!(hub.count(Target::Cdn), 0, "nobody asked for it to be fetched");
    // Those that are asked for come again; the rest is not here, and no later scrub knows of it.
    for (digest, content, _) in &blobs[..50] {
        assert!(larder.get(&url(digest)).await.body == *content);
        flip(&file(&larder.data(), digest), 0);
    }
    let found = scrub(&larder, "?repair=true").await;
    assert_eq!((&found["damaged"], &found["repaired"], &found["lost"]), (&50.into(), &50.into(), &0.into()));
    larder.until_idle().await;
    assert_eq!(larder.get(&tag).await.body, image.manifest);
    assert_eq!(scrub(&larder, "").await["damaged"], 0);
    larder.stop().await;
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_scrub_comes_by_itself_after_its_time_and_a_page_of_others_cannot_begin_one() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, "scrub = \"1d\"", "").await;
    let digest = hub.add_blob(REPO, noise(9_600, 100_000));
    assert!(larder.get(&url(&digest)).await.complete);
    flip(&file(&larder.data(), &digest), 500);
    let page = Call::new("POST", "/api/scrub")
        .header("X-Larder-Request", "1")
        .header("Origin", "http://evil.example")
        .send(larder.admin())
        .await;
    assert_eq!(page.status, 403);
    assert_eq!(quarantined(&larder.data()), 0);
    while larder.metric("larder_scrub_blobs_total", "repaired").await < 1.0 {
        larder.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(quarantined(&larder.data()), 1);
}

#[tokio::test]
async fn what_was_pushed_here_and_is_damaged_is_a_500_and_then_pushed_again() {
    let hub = Hub::plain().await;
    let mut larder = Larder::hosting(&hub, GOLDEN).await;
    let push = async |larder: &Larder, content: &[u8]| {
        let path = format!("/v2/golden/app/blobs/uploads/?digest={}", Digest::sha256(content));
        let call = Call::new("POST", &path).header("Content-Type", "application/octet-stream").body(content);
        call.send(larder.registry()).await.status
    };
    for (seed, size, at) in [(9_700, 3 * MIB, 5), (9_701, 40_000, 39_999), (9_702, 3 * MIB, 2 * MIB)] {
        let content = noise(seed, size);
        let path = format!("/v2/golden/app/blobs/{}", Digest::sha256(&content));
        assert_eq!(push(&larder, &content).await, 201);
        larder.restart().await;
        flip(&file(&larder.data(), &Digest::sha256(&content)), at);
        let first = Call::get(&path).send(larder.registry()).await;
        // Before the first megabyte an honest error; after it a cut, and then the error.
        assert!(!is_whole(&first) && content.starts_with(&first.body) || first.status == 500, "{}", first.status);
        assert_eq!(first.status, if at < MIB { 500 } else { 200 });
        assert_eq!(Call::get(&path).send(larder.registry()).await.status, 500);
        assert_eq!(push(&larder, &content).await, 201);
        assert!(Call::get(&path).send(larder.registry()).await.body == content);
    }
    assert_eq!(quarantined(&larder.data()), 3);
}

#[tokio::test]
async fn the_command_scrubs_a_stopped_data_directory_and_through_a_running_server() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let data = home.path().join("data");
    let config = |port: u16| {
        format!(
            "data_dir = {data:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n\
             [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
            hub.registry_url()
        )
    };
    let digest = hub.add_blob(REPO, noise(9_800, 300_000));
    let larder = Binary::start(home.path(), &config(0), "info");
    assert!(Call::get(&url(&digest)).send(larder.mirror).await.complete);
    let scrub = async |arguments: &[&str]| {
        let mut command = binary::larder();
        command.args(["scrub", "--json"]).args(arguments);
        let (code, found, said) = binary::beside(command).await;
        (code, serde_json::from_str::<serde_json::Value>(&found).unwrap_or_default(), said)
    };
    flip(&file(&data, &digest), 7);
    let (code, found, said) = scrub(&["--repair", "--admin", &larder.admin.to_string()]).await;
    assert_eq!((code, &found["repaired"]), (Some(0), &1.into()), "{said}");
    larder.terminate();
    tokio::task::spawn_blocking(|| larder.ended()).await.unwrap();
    // A port at which nobody listens: that of a listener that is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stopped = home.path().join("stopped.toml");
    fs::write(&stopped, config(port)).unwrap();
    let stopped = stopped.to_str().unwrap();
    flip(&file(&data, &digest), 7);
    let (code, found, said) = scrub(&["--config", stopped]).await;
    assert_eq!((code, &found["damaged"], &found["repaired"]), (Some(1), &1.into(), &0.into()), "{said}");
    assert!(said.contains("in quarantine"), "{said}");
    let (code, found, said) = scrub(&["--config", stopped]).await;
    assert_eq!((code, &found["damaged"]), (Some(0), &0.into()), "{said}");
}
