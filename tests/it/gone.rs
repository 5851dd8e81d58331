//! Tags that are deleted upstream while a copy is kept here: one word is not believed, two are, and the operator decides.

use std::time::Duration;

use crate::support::client::Answer;
use crate::support::hub::{Fault, Hub, Seen, Target};
use crate::support::image::Image;
use crate::support::larder::{Larder, files};

const REPO: &str = "library/alpha";
const TAG: &str = "/v2/library/alpha/manifests/latest";
const OTHER: &str = "/v2/library/alpha/manifests/other";
const EXPIRED: Duration = Duration::from_secs(301);

async fn cached(hub: &Hub, image: &Image, on_deleted: &str) -> Larder {
    hub.push(REPO, "latest", image);
    let larder = Larder::configured(hub, "", on_deleted).await;
    assert_eq!(larder.get(TAG).await.body, image.manifest);
    larder.until_idle().await;
    larder.clock.advance(EXPIRED);
    larder
}

fn assert_stale(answer: &Answer, image: &Image, why: &str) {
    assert_eq!((answer.status, answer.header("x-larder-cache")), (200, Some("stale")), "{why}");
    assert_eq!(answer.body, image.manifest);
    assert!(answer.header("warning").unwrap().contains(why), "{why}: {:?}", answer.header("warning"));
}

async fn gone(larder: &Larder, action: &str) -> f64 {
    larder.metric("larder_tags_gone_total", &format!("action=\"{action}\"")).await
}

#[tokio::test]
async fn a_tag_that_is_gone_is_kept_marked_counted_once_and_well_again_when_it_comes_back() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    let larder = cached(&hub, &image, "").await;
    hub.remove_tag(REPO, "latest");
    assert_stale(&larder.get(TAG).await, &image, "has no such tag, which is being looked into");
    larder.clock.advance(Duration::from_secs(60));
    assert_stale(&larder.get(TAG).await, &image, "being looked into");
    assert_eq!(gone(&larder, "kept").await, 0.0, "a minute is not long enough");
    larder.clock.advance(Duration::from_secs(61));
    for _ in 0..3 {
        assert_stale(&larder.get(TAG).await, &image, "gone upstream");
    }
    assert_eq!(gone(&larder, "kept").await, 1.0);

    hub.clear();
    larder.clock.advance(Duration::from_secs(31));
    assert_stale(&larder.get(TAG).await, &image, "gone upstream");
    assert_eq!(hub.count(Target::ManifestHead), 0, "it is asked about once per tag_ttl");
    larder.clock.advance(EXPIRED);
    assert_stale(&larder.get(TAG).await, &image, "gone upstream");
    assert_eq!((hub.count(Target::ManifestHead), gone(&larder, "kept").await), (1, 1.0));

    let new = Image::small(2);
    hub.push(REPO, "latest", &new);
    larder.clock.advance(EXPIRED);
    assert_eq!(larder.get(TAG).await.body, new.manifest);
    let answer = larder.get(TAG).await;
    assert_eq!((answer.header("x-larder-cache"), answer.header("warning")), (Some("hit"), None));
}

#[tokio::test]
async fn a_tag_that_is_gone_is_dropped_for_good_if_the_operator_wants_it_so() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    let mut larder = cached(&hub, &image, "on_deleted = \"drop\"").await;
    hub.remove_tag(REPO, "latest");
    assert_stale(&larder.get(TAG).await, &image, "being looked into");
    larder.clock.advance(Duration::from_secs(121));
    let answer = larder.get(TAG).await;
    assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (404, Some("MANIFEST_UNKNOWN")));
    assert_eq!((larder.get(TAG).await.status, gone(&larder, "dropped").await), (404, 1.0));
    assert!(files(&larder.data().join("cached/docker.io/library/alpha/_tags")).is_empty());
    let by_digest = format!("/v2/{REPO}/manifests/{}", image.digest());
    assert_eq!(larder.get(&by_digest).await.body, image.manifest, "what runs by digest goes on");
    hub.stop().await;
    larder.restart().await;
    assert_eq!(larder.get(TAG).await.status, 503, "nothing of the tag is left");
}

#[tokio::test]
async fn a_restart_forgets_neither_the_first_word_nor_the_second() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    let mut larder = cached(&hub, &image, "").await;
    hub.remove_tag(REPO, "latest");
    assert_stale(&larder.get(TAG).await, &image, "being looked into");
    larder.restart().await;
    larder.clock.advance(Duration::from_secs(121));
    assert_stale(&larder.get(TAG).await, &image, "gone upstream");
    assert_eq!(gone(&larder, "kept").await, 1.0);
    larder.restart().await;
    larder.clock.advance(EXPIRED);
    assert_stale(&larder.get(TAG).await, &image, "gone upstream");
    assert_eq!(gone(&larder, "kept").await, 0.0, "it was known");
}

#[tokio::test]
async fn a_404_near_trouble_does_not_count() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    let larder = cached(&hub, &image, "on_deleted = \"drop\"").await;
    hub.push(REPO, "other", &image);
    assert_eq!(larder.get(OTHER).await.status, 200);
    larder.clock.advance(EXPIRED);
    hub.remove_tag(REPO, "latest");
    // The first word, trouble with something else, and a second word much later: that is a first one again.
    assert_stale(&larder.get(TAG).await, &image, "being looked into");
    larder.clock.advance(Duration::from_secs(100));
    let trouble = hub.fault(|seen: &Seen| seen.is(Target::Manifest) && seen.is_for("other"), Fault::gateway(503));
    assert_eq!(larder.get(OTHER).await.header("x-larder-cache"), Some("stale"));
    trouble.lift();
    larder.until_up().await;
    larder.clock.advance(Duration::from_secs(31));
    for _ in 0..3 {
        assert_stale(&larder.get(TAG).await, &image, "being looked into");
        larder.clock.advance(Duration::from_secs(35));
    }
    assert_eq!(gone(&larder, "dropped").await, 0.0);
    larder.clock.advance(Duration::from_secs(35));
    assert_eq!((larder.get(TAG).await.status, gone(&larder, "dropped").await), (404, 1.0), "now it is");
}
