//! Nothing that was downloaded is downloaded again: fills that were cut, killed, or fetched in parts.

use hyper::Method;
use hyper::header::RANGE;
use larder::oci::Digest;

use crate::support::binary::Binary;
use crate::support::client::Call;
use crate::support::hub::{Fault, Hub, Seen, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound, files};

const REPO: &str = "library/alpha";

fn downloads(hub: &Hub) -> Vec<Seen> {
    hub.requests().into_iter().filter(|seen| seen.is(Target::Cdn) && seen.method == Method::GET).collect()
}

fn blob(digest: &Digest) -> String {
    format!("/v2/{REPO}/blobs/{digest}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_was_killed_goes_on_with_the_bytes_that_are_here() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    // Fifty times.
    let content = noise(1, 27_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let config = format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        home.path().join("data"),
        hub.registry_url()
    );
    let (mut here, mut marks) = (0, vec![0]);
    for at in (1..=50).map(|kill| kill * 500_000 + 500_000) {
        let larder = Binary::start(home.path(), &config, "info");
        let stall = hub.fault(Target::Cdn, Fault::Stall(at - here));
        let mut reading = Call::get(&blob(&digest)).open(larder.mirror).await;
        // What a client has read is behind the watermark, so it is hashed and marked.
        let shown = (at - (64 << 10) - 300_000) as usize;
        assert_eq!(reading.read(shown).await, content[..shown]);
        larder.kill();
        stall.release();
        stall.lift();
        let asked = downloads(&hub).len();
        hub.until_count(asked, |seen: &Seen| seen.is(Target::Cdn) && seen.over).await;
        here = mark(home.path());
        assert!(here >= shown as u64 && here <= at, "{here} of {at} are marked");
        marks.push(here);
    }
    let larder = Binary::start(home.path(), &config, "info");
    let answer = Call::get(&blob(&digest)).send(larder.mirror).await;
    assert!(answer.complete && answer.body == content);
    // What was verified before a kill is asked for by none after it.
    let starts: Vec<u64> = downloads(&hub).iter().map(start_of).collect();
    assert_eq!(starts, marks, "each goes on where the last one was");
    assert_eq!(files(&home.path().join("data/ingest")).len(), 0);
    assert_sound(&home.path().join("data"));
}

fn mark(home: &std::path::Path) -> u64 {
    let marks = files(&home.join("data/ingest")).into_iter();
    let mark = marks.into_iter().find(|(path, _)| path.extension().is_some_and(|extension| extension == "mark"));
    u64::from_le_bytes(mark.unwrap().1.try_into().unwrap())
}

fn start_of(seen: &Seen) -> u64 {
    seen.header(RANGE).map_or(0, |range| range["bytes=".len()..].split('-').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_part_that_turns_out_wrong_is_fetched_from_the_start_once() {
    let hub = Hub::plain().await;
    let content = noise(2, 2_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let mut larder = Larder::mirroring(&hub).await;
    larder.stop().await;
    let part = larder.data().join("ingest").join(format!("sha256-{}.part", digest.hex()));
    std::fs::write(&part, noise(3, 1_000_000)).unwrap();
    std::fs::write(part.with_extension("mark"), 1_000_000u64.to_le_bytes()).unwrap();
    larder.start().await;
    // Whoever reads along when that is found out is cut off, and never gets a wrong whole.
    let first = larder.get(&blob(&digest)).await;
    assert!(!first.complete || first.body == content);
    larder.until_idle().await;
    let second = larder.get(&blob(&digest)).await;
    assert!(second.complete && second.body == content);
    assert_eq!(downloads(&hub).iter().map(start_of).collect::<Vec<_>>(), [1_000_000, 0]);
}

#[tokio::test]
async fn a_blob_that_changes_in_mid_fill_is_fetched_from_the_start_once() {
    let hub = Hub::plain().await;
    let content = noise(10, 2_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    // One bit of the first half is wrong; the rest comes from an upstream that has the right blob.
    hub.fault(Target::Cdn, Fault::WrongBytes.times(1));
    hub.fault(Target::Cdn, Fault::ShortBody(1_500_000).times(1));
    let first = larder.get(&blob(&digest)).await;
    assert!(!first.complete || first.body == content);
    larder.until_idle().await;
    let second = larder.get(&blob(&digest)).await;
    assert_eq!((second.header("x-larder-cache"), second.body == content), (Some("hit"), true));
    assert_eq!(downloads(&hub).iter().map(start_of).collect::<Vec<_>>(), [0, 1_500_000, 0]);
}

#[tokio::test]
async fn a_part_that_is_here_is_kept_when_upstream_has_no_answer() {
    let hub = Hub::plain().await;
    let content = noise(11, 2_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let mut larder = Larder::mirroring(&hub).await;
    larder.stop().await;
    let part = larder.data().join("ingest").join(format!("sha256-{}.part", digest.hex()));
    std::fs::write(&part, &content[..1_000_000]).unwrap();
    std::fs::write(part.with_extension("mark"), 1_000_000u64.to_le_bytes()).unwrap();
    hub.stop().await;
    larder.start().await;
    let refused = larder.get(&blob(&digest)).await;
    assert!(refused.complete && refused.status == 404, "an honest error, and no beginning of a body");
    hub.start_again().await;
    larder.until_idle().await;
    let answer = larder.get(&blob(&digest)).await;
    assert!(answer.complete && answer.body == content);
    assert_eq!(downloads(&hub).iter().map(start_of).collect::<Vec<_>>(), [1_000_000]);
}

#[tokio::test]
async fn a_large_layer_is_fetched_in_parts_side_by_side_each_once() {
    let hub = Hub::plain().await;
    let image = Image::oci(4, &[40_000_000]);
    hub.push(REPO, "latest", &image);
    let (digest, content) = image.layer(0);
    let larder = Larder::configured(&hub, "", "parallel = 3").await;
    larder.head(&format!("/v2/{REPO}/manifests/latest")).await;
    let rule = hub.fault(Target::Cdn, Fault::Stall(1_000_000));
    let call = Call::get(&blob(&digest));
    let (reading, ()) = tokio::join!(call.open(larder.mirror()), rule.until_hit(3));
    assert_eq!(downloads(&hub).len(), 3, "three side by side, and no more");
    rule.release();
    rule.lift();
    let answer = reading.rest().await;
    assert!(answer.complete && answer.body == content);
    let mut starts: Vec<u64> = downloads(&hub).iter().map(start_of).collect();
    starts.sort_unstable();
    assert_eq!(starts, [0, 8 << 20, 16 << 20, 24 << 20, 32 << 20]);
    assert_eq!(downloads(&hub).iter().map(|seen| seen.sent).sum::<u64>(), content.len() as u64);
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_part_that_breaks_is_taken_up_where_it_broke() {
    let hub = Hub::plain().await;
    let image = Image::oci(5, &[30_000_000]);
    hub.push(REPO, "latest", &image);
    let (digest, content) = image.layer(0);
    let larder = Larder::configured(&hub, "", "parallel = 4\nmax_connections = 4").await;
    larder.head(&format!("/v2/{REPO}/manifests/latest")).await;
    hub.fault(Target::Cdn, Fault::ResetAfter(3_000_000).times(4));
    let answer = larder.get(&blob(&digest)).await;
    assert!(answer.complete && answer.body == content);
    assert!(downloads(&hub).len() >= 8, "four broke and were taken up");
}

#[tokio::test]
async fn an_upstream_without_ranges_is_asked_once() {
    let hub = Hub::plain().await;
    let image = Image::oci(6, &[30_000_000]);
    hub.push(REPO, "latest", &image);
    let (digest, content) = image.layer(0);
    let larder = Larder::mirroring(&hub).await;
    larder.head(&format!("/v2/{REPO}/manifests/latest")).await;
    hub.fault(Target::Cdn, Fault::IgnoreRange);
    let answer = larder.get(&blob(&digest)).await;
    assert!(answer.complete && answer.body == content);
    assert_eq!(downloads(&hub).len(), 1);
}

#[tokio::test]
async fn a_wrong_part_spoils_the_whole_and_nothing_is_kept() {
    let hub = Hub::plain().await;
    let image = Image::oci(7, &[30_000_000]);
    hub.push(REPO, "latest", &image);
    let (digest, content) = image.layer(0);
    let larder = Larder::mirroring(&hub).await;
    larder.head(&format!("/v2/{REPO}/manifests/latest")).await;
    let rule = hub.fault(Target::Cdn, Fault::WrongBytes);
    assert!(!larder.get(&blob(&digest)).await.complete);
    // The parts may have been of two blobs, so it starts over, once.
    larder.until_idle().await;
    rule.lift();
    assert_eq!(downloads(&hub).iter().map(start_of).filter(|start| *start == 0).count(), 2);
    assert_eq!(files(&larder.data().join("ingest")).len(), 0);
    let answer = larder.get(&blob(&digest)).await;
    assert!(answer.complete && answer.body == content);
}

#[tokio::test]
async fn one_connection_is_enough_for_a_fill_that_breaks() {
    let hub = Hub::plain().await;
    let content = noise(8, 3_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::configured(&hub, "", "max_connections = 1").await;
    hub.fault(Target::Cdn, Fault::ShortBody(1_000_000).times(1));
    let answer = larder.get(&blob(&digest)).await;
    assert!(answer.complete && answer.body == content);
}

#[tokio::test]
async fn a_range_far_ahead_of_the_fill_comes_straight_from_upstream_while_the_whole_is_fetched() {
    let hub = Hub::plain().await;
    let image = Image::oci(9, &[60_000_000]);
    hub.push(REPO, "latest", &image);
    let (digest, content) = image.layer(0);
    let larder = Larder::configured(&hub, "", "parallel = 1").await;
    larder.head(&format!("/v2/{REPO}/manifests/latest")).await;
    let stall = hub.fault(Target::Cdn, Fault::Stall(1_000_000).times(1));
    let ranged = |range: &str| Call::get(&blob(&digest)).header("Range", range);
    // Near the watermark it waits for the fill; far ahead it does not.
    let near = ranged("bytes=100-199").send(larder.mirror()).await;
    assert_eq!((near.status, near.header("x-larder-cache"), &near.body[..]), (206, Some("miss"), &content[100..200]));
    for start in [40_000_000, 59_999_000] {
        let far = ranged(&format!("bytes={start}-{}", start + 999)).send(larder.mirror()).await;
        assert_eq!((far.status, far.header("x-larder-cache")), (206, Some("bypass")));
        assert_eq!(far.header("content-range"), Some(format!("bytes {start}-{}/60000000", start + 999).as_str()));
        assert_eq!(far.body, content[start..start + 1000]);
        assert_eq!(far.header("cache-control"), Some("no-cache"), "it is not verified");
    }
    stall.release();
    larder.until_idle().await;
    let whole = larder.get(&blob(&digest)).await;
    assert_eq!((whole.header("x-larder-cache"), whole.body == content), (Some("hit"), true));
    let sent: u64 = downloads(&hub).iter().map(|seen| seen.sent).sum();
    assert_eq!(sent, 60_000_000 + 2 * 1000, "never a second full download");
}
