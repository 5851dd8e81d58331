//! A line with a limit: who gets what of it, told by the bytes that left the hub.

use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::Method;
use larder::oci::Digest;

use crate::support::client::{Call, Reading};
use crate::support::hub::{Hub, Seen, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";

fn blob(digest: &Digest) -> String {
    format!("/v2/{REPO}/blobs/{digest}")
}

fn is_download(seen: &Seen) -> bool {
    seen.is(Target::Cdn) && seen.method == Method::GET
}

/// Reads to the end, tells how far it is, and how far the other was when it got there.
async fn follow(mut reading: Reading, here: &AtomicUsize, there: &AtomicUsize) -> (Vec<u8>, usize) {
    let mut content = Vec::new();
    loop {
        let piece = reading.read(100_000).await;
        if piece.is_empty() {
            return (content, there.load(Ordering::SeqCst));
        }
        content.extend(piece);
        here.store(content.len(), Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_of_many_connections_and_one_of_one_go_on_together() {
    const SIZE: usize = 18_000_000;
    let hub = Hub::plain().await;
    // The length of one is known from its manifest, so that it is fetched in parts; nothing is known of the other.
    let image = Image::oci(900, &[SIZE]);
    hub.push(REPO, "latest", &image);
    let (many, many_content) = image.layer(0);
    let one_content = noise(901, SIZE);
    let one = hub.add_blob(REPO, one_content.clone());
    let larder = Larder::configured(&hub, "", "bandwidth = \"6MB/s\"").await;
    larder.head(&format!("/v2/{REPO}/manifests/latest")).await;
    let calls = [many, one].map(|digest| Call::get(&blob(&digest)));
    let (first, second) = tokio::join!(calls[0].open(larder.mirror()), calls[1].open(larder.mirror()));
    let at = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (first, second) = tokio::join!(follow(first, &at[0], &at[1]), follow(second, &at[1], &at[0]));
    assert!(first.0 == many_content && second.0 == one_content);
    assert_eq!((hub.count(is_download), hub.count(move |seen: &Seen| is_download(seen) && seen.is_for(many))), (4, 3));
    // By connections it would be three to one.
    assert!(first.1.min(second.1) > SIZE / 2, "one was at {} when the other was done", first.1.min(second.1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fetched_ahead_yields_the_line_until_a_client_asks_for_it() {
    let hub = Hub::plain().await;
    let image = Image::oci(902, &[8_000_000]);
    hub.push(REPO, "latest", &image);
    let (ahead, ahead_content) = image.layer(0);
    let content = noise(903, 3_000_000);
    let wanted = hub.add_blob(REPO, content.clone());
    let larder = Larder::configured(&hub, "", "bandwidth = \"3MB/s\"\nparallel = 1").await;
    // The prefetch begins with the manifest, and has the line for itself.
    larder.get(&format!("/v2/{REPO}/manifests/latest")).await;
    hub.until_count(1, move |seen: &Seen| is_download(seen) && seen.is_for(ahead) && seen.sent > 0).await;
    let answer = larder.get(&blob(&wanted)).await;
    assert!(answer.complete && answer.body == content);
    let joined = larder.get(&blob(&ahead)).await;
    assert!(joined.complete && joined.body == ahead_content);
    let sent = |digest| {
        hub.requests().iter().filter(|seen| is_download(seen) && seen.is_for(digest)).map(|seen| seen.sent).sum::<u64>()
    };
    assert_eq!((sent(ahead), sent(wanted)), (8_000_000, 3_000_000), "each byte once");
}
