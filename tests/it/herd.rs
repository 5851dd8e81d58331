//! Many clients on what nobody has yet: upstream sends each byte once, and nobody is held up by anybody.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use hyper::header::RANGE;
use larder::oci::Digest;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::support::binary::Binary;
use crate::support::client::{Answer, Call, Connection};
use crate::support::hub::{Fault, Hub, Seen, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound};

const REPO: &str = "library/alpha";

fn blob(digest: &Digest) -> String {
    format!("/v2/{REPO}/blobs/{digest}")
}

fn downloads(hub: &Hub) -> Vec<Seen> {
    hub.requests().into_iter().filter(|seen| seen.is(Target::Cdn) && seen.method == Method::GET).collect()
}

/// The probe's question after a CDN that broke: one byte.
fn is_check(seen: &Seen) -> bool {
    let range = seen.header(RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    range.is_some_and(|(first, last)| first == last)
}

/// The `number`th client: no address has so many that it is refused.
async fn client(number: usize, mirror: SocketAddr) -> Connection {
    let ip = Ipv4Addr::new(127, 0, 1, 1 + (number / 100) as u8);
    Connection::open_from(IpAddr::V4(ip), mirror).await.unwrap()
}

/// The whole of what `client` is given for `path`.
async fn get(number: usize, mirror: SocketAddr, path: String) -> Answer {
    client(number, mirror).await.call(&Call::get(&path)).await
}

fn config(home: &std::path::Path, hub: &Hub, upstream: &str) -> String {
    format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n{upstream}\n",
        home.join("data"),
        hub.registry_url()
    )
}

/// What a process of its own has in memory, in bytes.
async fn resident(admin: SocketAddr) -> u64 {
    let page = Call::get("/metrics").send(admin).await.text();
    let line = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.unwrap().parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_with_leavers_and_a_sleeper_gets_each_byte_of_upstream_once() {
    let hub = Hub::plain().await;
    let content = noise(700, 6_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let mut random = SmallRng::seed_from_u64(3);
    let half = hub.fault(Target::Cdn, Fault::Stall(3_000_000));
    let call = Call::get(&blob(&digest));
    let starter = call.open(larder.mirror()).await;
    let mut sleeper = call.open(larder.mirror()).await;
    assert_eq!(sleeper.read(1000).await, content[..1000]);
    let mut readings = Vec::new();
    for _ in 0..100 {
        readings.push(call.open(larder.mirror()).await);
    }
    drop(starter);
    // Ten leave where chance has it: before the middle, and after it.
    let leavers = readings.split_off(90).into_iter().map(|mut reading| {
        let at = random.random_range(0..5_500_000);
        async move { reading.read(at).await.len() == at }
    });
    let leavers = tokio::spawn(join_all(leavers.collect::<Vec<_>>()));
    let stayers = readings.into_iter().map(|reading| reading.rest());
    let stayers = tokio::spawn(join_all(stayers.collect::<Vec<_>>()));
    half.release();
    assert!(leavers.await.unwrap().into_iter().all(|read| read));
    for answer in stayers.await.unwrap() {
        assert!(answer.complete && answer.body == content);
    }
    assert!(sleeper.rest().await.body == content[1000..]);
    let sent: Vec<u64> = downloads(&hub).iter().map(|seen| seen.sent).collect();
    assert_eq!(sent, [content.len() as u64]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clients_pull_a_cold_image_at_the_price_of_one() {
    let hub = Hub::plain().await;
    let image = Image::oci(701, &[300_000, 70_000]);
    hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    let mirror = larder.mirror();
    let digests = image.blob_digests();
    let pulls = (0..300).map(|number| {
        let digests = digests.clone();
        async move {
            let mut client = client(number, mirror).await;
            let mut answers = vec![client.call(&Call::get(&format!("/v2/{REPO}/manifests/latest"))).await];
            for digest in &digests {
                answers.push(client.call(&Call::get(&blob(digest))).await);
            }
            answers
        }
    });
    for answers in join_all(pulls).await {
        assert!(answers[0].complete && answers[0].body == image.manifest);
        for (answer, content) in answers[1..].iter().zip(&image.blobs) {
            assert!(answer.complete && answer.body == content[..]);
        }
    }
    for digest in digests {
        assert_eq!(downloads(&hub).iter().filter(|seen| seen.is_for(digest)).count(), 1);
    }
    let manifests = |seen: &Seen| seen.path.contains("/manifests/") && seen.method == Method::GET;
    let answered = |seen: &Seen| seen.status == Some(200);
    assert_eq!(hub.count(move |seen: &Seen| manifests(seen) && answered(seen)), 1);
    assert_eq!(hub.count(Target::Token), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_do_not_notice_that_the_first_one_left() {
    let hub = Hub::plain().await;
    let content = noise(702, 1_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let at = SmallRng::seed_from_u64(10).random_range(1..700_000);
    let stop = hub.fault(Target::Cdn, Fault::Stall(800_000));
    let mut leader = Call::get(&blob(&digest)).open(larder.mirror()).await;
    assert_eq!(leader.read(at).await, content[..at]);
    let others = (0..200).map(|number| get(number, larder.mirror(), blob(&digest)));
    let others = tokio::spawn(join_all(others.collect::<Vec<_>>()));
    drop(leader);
    stop.release();
    for answer in others.await.unwrap() {
        let (status, length) = (answer.status, answer.body.len());
        assert!(answer.complete && answer.body == content, "{status}, {length} bytes: {:?}", answer.headers);
    }
    assert_eq!(downloads(&hub).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_breaks_in_a_row_are_one_whole_answer_and_hardly_a_byte_twice() {
    const SIZE: u64 = 24_000_000;
    let hub = Hub::plain().await;
    let content = noise(703, SIZE as usize);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::configured(&hub, "", "stall_timeout = \"2s\"").await;
    let mut random = SmallRng::seed_from_u64(8);
    // Each meets what the one before it left, and far enough that it counts as progress.
    for number in 0..5 {
        let at = random.random_range(2_000_000..4_000_000);
        let kind = [Fault::ResetAfter(at), Fault::ShortBody(at), Fault::Stall(at)][number % 3].clone();
        let fill = |seen: &Seen| seen.is(Target::Cdn) && !is_check(seen);
        hub.fault(fill, kind.after(number as u64).times(1));
    }
    let answer = larder.get(&blob(&digest)).await;
    assert!(answer.complete && answer.body == content);
    assert_eq!(downloads(&hub).iter().filter(|seen| !is_check(seen)).count(), 6);
    // What arrived: a reset also takes what was still in the sockets' buffers, which the hub counts as sent.
    let arrived = larder.metric("larder_upstream_bytes_total", "").await as u64;
    assert!((SIZE..=SIZE + SIZE / 50 + 5 * (256 << 10)).contains(&arrived), "{arrived} bytes for {SIZE}");
    hub.heal();
    assert_sound(&larder.data());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_readers_that_sleep_cost_little_and_hold_up_nobody() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let content = noise(704, 6_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Binary::start(home.path(), &config(home.path(), &hub, ""), "info");
    assert!(get(0, larder.mirror, blob(&digest)).await.body == content);
    let before = resident(larder.admin).await;
    let mut sleepers = Vec::new();
    for number in 0..500 {
        let mut reading = client(number, larder.mirror).await.start(&Call::get(&blob(&digest))).await;
        assert_eq!(reading.read(1024).await, content[..1024]);
        sleepers.push(reading);
    }
    let each = resident(larder.admin).await.saturating_sub(before) / 500;
    assert!(each < 128 << 10, "{each} bytes of memory for each connection");
    let fast = (500..550).map(|number| get(number, larder.mirror, blob(&digest)));
    for answer in join_all(fast).await {
        assert!(answer.complete && answer.body == content);
    }
    drop(sleepers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_cold_streams_fit_into_a_hundred_mebibytes() {
    const STREAMS: usize = 200;
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let contents: Vec<_> = (0..STREAMS).map(|seed| noise(1000 + seed as u64, 600_000)).collect();
    let digests: Vec<Digest> = contents.iter().map(|content| hub.add_blob(REPO, content.clone())).collect();
    let larder = Binary::start(home.path(), &config(home.path(), &hub, "max_connections = 200"), "info");
    let middle = hub.fault(Target::Cdn, Fault::Stall(400_000));
    let mirror = larder.mirror;
    let streams = digests.iter().enumerate().map(|(number, digest)| {
        let path = blob(digest);
        async move { client(number, mirror).await.start(&Call::get(&path)).await }
    });
    let mut streams = join_all(streams).await;
    middle.until_hit(STREAMS as u64).await;
    for (stream, content) in streams.iter_mut().zip(&contents) {
        assert_eq!(stream.read(300_000).await, content[..300_000]);
    }
    let resident = resident(larder.admin).await;
    assert!(resident < 100 << 20, "{resident} bytes in memory with {STREAMS} streams in their middle");
    middle.release();
    for (stream, content) in streams.into_iter().zip(&contents) {
        let rest = tokio::time::timeout(Duration::from_secs(30), stream.rest()).await.unwrap();
        assert!(rest.complete && rest.body == content[300_000..]);
    }
    assert_eq!(downloads(&hub).len(), STREAMS);
}
