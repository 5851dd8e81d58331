//! While an upstream is out of order nobody waits for it: what is cached comes at once and says why it may be old, and
//! what is not cached is refused at once and says why, too.

use crate::support::client::{Answer, Call, PATIENCE};
use crate::support::hub::{Hub, PortState, Role};
use crate::support::image::Image;
use crate::support::larder::Larder;
use std::time::Duration;

const REPO: &str = "library/alpha";
const EXPIRED: Duration = Duration::from_secs(301);

/// Longer than any test waits: who waits for a silent upstream never comes back.
const FOR_EVER: &str = "connect_timeout = \"90s\"\nheader_timeout = \"90s\"";

fn tag(tag: &str) -> String {
    format!("/v2/{REPO}/manifests/{tag}")
}

/// `tags` of whole images, cached and old, and an upstream that is known to be out of order and never answers.
async fn in_an_outage(hub: &Hub, tags: &[&str]) -> Larder {
    let larder = Larder::configured(hub, "revalidate_timeout = \"80s\"", FOR_EVER).await;
    for (seed, name) in tags.iter().enumerate() {
        let image = Image::small(seed as u64);
        hub.push(REPO, name, &image);
        assert_eq!(larder.get(&tag(name)).await.body, image.manifest);
        for digest in image.blob_digests() {
            assert!(larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await.complete);
        }
    }
    larder.clock.advance(EXPIRED);
    hub.port_state(Role::Registry, PortState::Refusing).await;
    until_out_of_order(&larder, &tag(tags[0])).await;
    hub.port_state(Role::Registry, PortState::Silent).await;
    larder
}

/// Asks until the answer is that upstream is out of order.
pub async fn until_out_of_order(larder: &Larder, path: &str) -> Answer {
    let last = std::cell::Cell::new(String::new());
    let wait = async {
        loop {
            let answer = larder.get(path).await;
            last.set(format!("{answer:?}"));
            let warning = answer.header("warning").unwrap_or_default();
            if warning.contains("out of order since") || answer.text().contains("out of order since") {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(answer) => answer,
        Err(_elapsed) => panic!("the outage is not noticed: {}", last.take()),
    }
}

#[tokio::test]
async fn no_client_waits_for_an_upstream_that_is_out_of_order() {
    let hub = Hub::plain().await;
    let names: Vec<String> = (0..20).map(|n| format!("v{n}")).collect();
    let tags: Vec<&str> = names.iter().map(String::as_str).collect();
    let larder = in_an_outage(&hub, &tags).await;
    for (seed, name) in tags.iter().enumerate() {
        let answer = larder.get(&tag(name)).await;
        assert_eq!((answer.status, answer.header("x-larder-cache")), (200, Some("stale")), "{name}");
        assert_eq!(answer.body, Image::small(seed as u64).manifest, "{name}");
        let warning = answer.header("warning").unwrap();
        assert!(warning.starts_with("299 - \"docker.io is out of order since 2"), "{warning}");
        assert!(answer.header("age").unwrap().parse::<u64>().unwrap() >= 301);
    }
}

#[tokio::test]
async fn what_is_not_cached_is_refused_at_once_with_the_upstream_the_hour_and_the_image() {
    let hub = Hub::plain().await;
    let larder = in_an_outage(&hub, &["latest"]).await;
    let none = Image::small(77).digest();
    for (reference, image) in
        [("other".to_owned(), "library/alpha:other".to_owned()), (none.to_string(), format!("library/alpha@{none}"))]
    {
        let answer = larder.get(&tag(&reference)).await;
        assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (503, Some("UNAVAILABLE")));
        let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        let ends = format!("; {image} is not cached here");
        assert!(message.starts_with("docker.io: ") && message.ends_with(&ends), "{message}");
        assert!(message.contains("out of order since 2"), "{message}");
        assert!(answer.header("retry-after").is_some());
        assert_eq!(larder.head(&tag(&reference)).await.status, 503);
    }
    let layer = larder.get(&format!("/v2/{REPO}/blobs/{none}")).await;
    assert_eq!((layer.status, layer.json()["errors"][0]["code"].as_str()), (404, Some("BLOB_UNKNOWN")));
}

#[tokio::test]
async fn lists_come_from_what_is_known_and_say_so() {
    let hub = Hub::plain().await;
    let larder = in_an_outage(&hub, &["one", "two"]).await;
    let tags = larder.get(&format!("/v2/{REPO}/tags/list")).await;
    assert_eq!((tags.status, tags.json()["tags"].clone()), (200, serde_json::json!(["one", "two"])));
    let referrers = larder.get(&format!("/v2/{REPO}/referrers/{}", Image::small(0).digest())).await;
    assert_eq!((referrers.status, referrers.json()["manifests"].clone()), (200, serde_json::json!([])));
    for answer in [tags, referrers] {
        assert_eq!(answer.header("x-larder-cache"), Some("stale"));
        assert!(answer.header("warning").unwrap().contains("out of order since"));
    }
    assert_eq!(Call::get("/readyz").send(larder.admin()).await.status, 200);
}

#[tokio::test]
async fn the_first_who_meets_a_silent_upstream_waits_and_nobody_after_it() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    hub.push(REPO, "other", &image);
    let larder = Larder::configured(&hub, "revalidate_timeout = \"300ms\"", FOR_EVER).await;
    for name in ["latest", "other"] {
        assert_eq!(larder.get(&tag(name)).await.body, image.manifest);
    }
    larder.until_idle().await;
    larder.clock.advance(EXPIRED);
    hub.port_state(Role::Registry, PortState::Silent).await;
    let first = larder.get(&tag("latest")).await;
    assert!(first.header("warning").unwrap().contains("no usable answer"), "{:?}", first.header("warning"));
    for name in ["latest", "other"] {
        let next = larder.get(&tag(name)).await;
        assert!(next.header("warning").unwrap().contains("out of order since"), "{name}: one wait is enough");
    }
}

#[tokio::test]
async fn a_jump_of_the_clock_and_a_restart_in_an_outage_lose_nothing() {
    let hub = Hub::plain().await;
    let mut larder = in_an_outage(&hub, &["latest"]).await;
    larder.stop().await;
    hub.stop().await;
    // Ten years: nothing is too old to be served.
    larder.clock.advance(Duration::from_secs(10 * 365 * 24 * 3600));
    larder.start().await;
    let answer = until_out_of_order(&larder, &tag("latest")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &Image::small(0).manifest[..]));
    assert!(answer.header("age").unwrap().parse::<u64>().unwrap() >= 315_360_000);
}
