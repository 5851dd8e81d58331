//! Blobs that are here, as they are sent without TLS: from the file, without being read. Bytes are exact or missing,
//! never others.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use larder::app::Server;
use larder::clock::Clock;
use larder::config::Config;
use larder::oci::Digest;

use crate::support::client::{Answer, Call, Connection, PATIENCE, send_raw};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";
const MIB: usize = 1 << 20;
/// Around what is sent at a time, and what is held back or shown only whole.
const SIZES: [usize; 12] =
    [0, 1, 65_535, 65_536, 65_537, MIB / 2 - 1, MIB / 2, MIB / 2 + 1, MIB - 1, MIB, MIB + 1, 5 * MIB];

fn blob(digest: &Digest) -> String {
    format!("/v2/{REPO}/blobs/{digest}")
}

fn stored(larder: &Larder, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    larder.data().join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn is(answer: &Answer, status: u16, content: &[u8]) -> bool {
    answer.status == status && answer.complete && answer.body == content
}

/// A mirror that has a blob already.
async fn with_blob(seed: u64, size: usize) -> (Larder, Hub, Digest, Bytes) {
    let hub = Hub::plain().await;
    let content = noise(seed, size);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    assert!(is(&larder.get(&blob(&digest)).await, 200, &content));
    (larder, hub, digest, content)
}

/// The whole of `content`, and the parts of it that begin or end somewhere special, all on one connection.
async fn assert_exact(connection: &mut Connection, digest: &Digest, content: &[u8]) {
    let size = content.len();
    assert!(is(&connection.call(&Call::get(&blob(digest))).await, 200, content), "{size}");
    let edges = [0, 1, 4095, 4096, 65_536, MIB / 2 - 1, MIB / 2, MIB, size / 2, size.saturating_sub(1)];
    for (start, end) in edges.into_iter().flat_map(|start| edges.map(|end| (start, end))) {
        if start > end || end >= size {
            continue;
        }
        let call = Call::get(&blob(digest)).header("Range", &format!("bytes={start}-{end}"));
        let answer = connection.call(&call).await;
        assert!(is(&answer, 206, &content[start..=end]), "{start}-{end} of {size}");
    }
    let head = connection.call(&Call::head(&blob(digest))).await;
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
}

#[tokio::test]
async fn every_size_and_range_is_exact() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let mut connection = Connection::open(larder.mirror()).await.unwrap();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let content = noise(100 + seed as u64, size);
        let digest = hub.add_blob(REPO, content.clone());
        for _cold_and_hot in 0..2 {
            assert_exact(&mut connection, &digest, &content).await;
        }
    }
}

#[tokio::test]
async fn every_size_and_range_is_exact_over_tls() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let own = rcgen::generate_simple_self_signed(["mirror.localhost".to_owned()]).unwrap();
    let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let config = format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {cert:?}, key = {key:?} }}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        home.path().join("data"),
        hub.registry_url(),
    );
    let file = home.path().join("larder.toml");
    std::fs::write(&file, config).unwrap();
    let server = Server::start(&Config::load(Some(&file), std::iter::empty()).unwrap(), Clock::system()).await.unwrap();
    let mut connection = Connection::open_tls(server.mirror, "mirror.localhost", &own.cert.pem()).await.unwrap();
    for (seed, size) in [1, 65_537, MIB + 1].into_iter().enumerate() {
        let content = noise(200 + seed as u64, size);
        let digest = hub.add_blob(REPO, content.clone());
        assert_exact(&mut connection, &digest, &content).await;
    }
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let (larder, hub, large, content) = with_blob(300, 3 * MIB + 5).await;
    let image = Image::oci(301, &[70_000, 10]);
    hub.push(REPO, "latest", &image);
    let layer = image.layer(0).0;
    let layer_bytes = &image.blobs[image.blob_digests().iter().position(|digest| *digest == layer).unwrap()];
    let (tag, missing) = (format!("/v2/{REPO}/manifests/latest"), blob(&Digest::sha256(b"nowhere")));
    let outside = larder.get(&blob(&large)).await.body.len();
    let outside = format!("no byte of that range exists: the blob has {outside}");
    let outside = format!(r#"{{"errors":[{{"code":"SIZE_INVALID","detail":null,"message":"{outside}"}}]}}"#);
    let mixture = [
        (Call::get(&tag), 200, &image.manifest[..]),
        (Call::get(&blob(&large)), 200, &content[..]),
        (Call::head(&blob(&large)), 200, b""),
        (Call::get(&blob(&layer)), 200, layer_bytes),
        (Call::get(&blob(&large)).header("Range", "bytes=5-600004"), 206, &content[5..600_005]),
        (Call::get(&blob(&large)).header("Range", "bytes=99999999-"), 416, outside.as_bytes()),
        (Call::get(&blob(&large)).header("If-None-Match", "*"), 304, b""),
        (Call::head(&missing), 404, b""),
        (Call::get(&tag), 200, &image.manifest[..]),
        (Call::get("/v2/"), 200, b"{}"),
    ];
    let calls: Vec<Call> = mixture.iter().map(|(call, ..)| call.clone()).collect();
    let mut connection = Connection::open(larder.mirror()).await.unwrap();
    for _round in 0..4 {
        let answers = connection.pipeline(&calls).await;
        for (number, (answer, (_, status, body))) in answers.iter().zip(&mixture).enumerate() {
            assert!(is(answer, *status, body), "{number}: {} with {} bytes", answer.status, answer.body.len());
        }
    }
    let error = connection.call(&Call::get(&missing)).await;
    assert_eq!((error.status, error.json()["errors"][0]["code"].as_str()), (404, Some("BLOB_UNKNOWN")));
    assert!(is(&connection.call(&Call::get(&blob(&large))).await, 200, &content));
}

#[tokio::test]
async fn a_client_of_old_gets_the_same_bytes() {
    let (larder, _hub, digest, content) = with_blob(302, MIB + 3).await;
    for head in ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"] {
        let request = format!("GET {} {head}\r\n", blob(&digest));
        let said = send_raw(larder.mirror(), request.as_bytes()).await;
        let body = said.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert!(said[body..] == content, "{head:?}");
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_holds_up_nobody_and_misses_nothing() {
    let (larder, _hub, digest, content) = with_blob(303, 8 * MIB).await;
    let mut sleeper = Call::get(&blob(&digest)).open(larder.mirror()).await;
    for _ in 0..3 {
        assert!(is(&larder.get(&blob(&digest)).await, 200, &content));
    }
    let mut slowly = Vec::new();
    while slowly.len() < MIB {
        slowly.extend(sleeper.read(10_007).await);
        tokio::task::yield_now().await;
    }
    slowly.extend(sleeper.rest().await.body);
    assert!(slowly == content);
}

/// How many descriptors of this process lead to the file of that name, removed or not.
fn descriptors(name: &str) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().contains(name)).count()
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_file_with_it() {
    let (larder, _hub, digest, content) = with_blob(304, 8 * MIB).await;
    let mut leavers = Vec::new();
    for _ in 0..5 {
        let mut leaver = Call::get(&blob(&digest)).open(larder.mirror()).await;
        assert_eq!(leaver.read(MIB + 1).await, content[..MIB + 1]);
        leavers.push(leaver);
    }
    assert_eq!(descriptors(&digest.hex()), 1, "one for all of them");
    // What is asked for often is held open, but not when it is gone.
    std::fs::remove_file(stored(&larder, &digest)).unwrap();
    assert!(is(&larder.get(&blob(&digest)).await, 200, &content));
    let removed = format!("{} (deleted)", digest.hex());
    assert_eq!(descriptors(&removed), 1, "its readers read on");
    drop(leavers);
    let closed = async {
        while descriptors(&removed) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("a file is held open for nobody");
    assert!(is(&larder.get(&blob(&digest)).await, 200, &content));
}

#[tokio::test]
async fn a_blob_that_is_removed_while_it_is_read_is_read_to_its_end() {
    let (larder, _hub, digest, content) = with_blob(305, 8 * MIB).await;
    let whole = Call::get(&blob(&digest)).open(larder.mirror()).await;
    let part = Call::get(&blob(&digest)).header("Range", "bytes=1000000-").open(larder.mirror()).await;
    std::fs::remove_file(stored(&larder, &digest)).unwrap();
    assert!(is(&whole.rest().await, 200, &content));
    assert!(is(&part.rest().await, 206, &content[1_000_000..]));
}

#[tokio::test]
async fn a_file_that_is_cut_short_cuts_its_readers_off() {
    let (larder, hub, digest, content) = with_blob(306, 24 * MIB).await;
    // One that waits where nothing was sent yet, one in the middle, and one that comes when it is too late.
    let mut readings = Vec::new();
    for range in ["bytes=0-", "bytes=8388608-", "bytes=1000000-"] {
        readings.push(Call::get(&blob(&digest)).header("Range", range).open(larder.mirror()).await);
    }
    File::options().write(true).open(stored(&larder, &digest)).unwrap().set_len(MIB as u64).unwrap();
    for (reading, start) in readings.into_iter().zip([0, 8_388_608, 1_000_000]) {
        let answer = reading.rest().await;
        assert!(!answer.complete, "from {start}: {} bytes", answer.body.len());
        assert!(content[start..].starts_with(&answer.body), "from {start}: other bytes than the blob's");
    }
    hub.clear();
    assert!(is(&larder.get(&blob(&digest)).await, 200, &content), "what is damaged is fetched anew");
    assert_eq!(hub.count(Target::Cdn), 1);
}

/// Readers at a fill that stops in the middle, and goes on.
async fn follow(hub: &Hub, mirror: SocketAddr, digest: &Digest, content: &[u8]) {
    let half = hub.fault(Target::Cdn, Fault::Stall(3_000_000));
    let mut readings = Vec::new();
    for _ in 0..3 {
        readings.push(Call::get(&blob(digest)).open(mirror).await);
    }
    for reading in &mut readings {
        assert!(reading.read(2_500_000).await == content[..2_500_000]);
    }
    half.release();
    for reading in readings {
        assert!(is(&reading.rest().await, 200, &content[2_500_000..]));
    }
}

#[tokio::test]
async fn a_blob_that_is_still_fetched_is_exact_for_all_who_follow_it() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let content = noise(307, 5 * MIB);
    let digest = hub.add_blob(REPO, content.clone());
    follow(&hub, larder.mirror(), &digest, &content).await;
    // One whose length nobody knows comes in chunks.
    let content = noise(308, 5 * MIB);
    let digest = hub.add_blob(REPO, content.clone());
    hub.fault(Target::Cdn, Fault::NoContentLength);
    follow(&hub, larder.mirror(), &digest, &content).await;
    assert!(is(&larder.get(&blob(&digest)).await, 200, &content));
}

#[tokio::test]
async fn a_fill_that_breaks_cuts_those_who_follow_it() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let content = noise(309, 3 * MIB);
    let digest = hub.add_blob(REPO, content.clone());
    let wrong = hub.fault(Target::Cdn, Fault::WrongBytes);
    let answer = larder.get(&blob(&digest)).await;
    assert!(!answer.complete, "{} with {} bytes", answer.status, answer.body.len());
    wrong.lift();
    assert!(is(&larder.get(&blob(&digest)).await, 200, &content));
}
