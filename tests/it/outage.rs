//! What is cached is served whatever becomes of upstream, in bounded time, and says that it may be old.

use std::time::Duration;

use larder::oci::Digest;

use crate::support::client::{Answer, Call};
use crate::support::hub::{Fault, Hub, Plan, PortState, Role, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";
const TAG: &str = "/v2/library/alpha/manifests/latest";
/// The lifetime of a tag, and a second.
const EXPIRED: Duration = Duration::from_secs(301);

async fn cached(hub: &Hub, image: &Image) -> Larder {
    hub.push(REPO, "latest", image);
    let larder = Larder::configured(hub, "revalidate_timeout = \"300ms\"", "header_timeout = \"2s\"").await;
    assert_eq!(larder.get(TAG).await.body, image.manifest);
    for digest in image.blob_digests() {
        assert!(larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await.complete);
    }
    larder.clock.advance(EXPIRED);
    hub.clear();
    larder
}

fn assert_stale(answer: &Answer, image: &Image, case: &str) {
    assert_eq!((answer.status, answer.header("x-larder-cache")), (200, Some("stale")), "{case}");
    assert_eq!(answer.body, image.manifest, "{case}");
    assert!(answer.header("warning").unwrap().starts_with("299 - \""), "{case}");
    assert!(answer.header("age").unwrap().parse::<u64>().unwrap() >= 301, "{case}");
}

#[tokio::test]
async fn an_old_tag_is_confirmed_by_head_which_costs_no_pull() {
    let hub = Hub::plain().await;
    let larder = cached(&hub, &Image::small(1)).await;
    assert_eq!(larder.get(TAG).await.header("x-larder-cache"), Some("revalidated"));
    assert_eq!((hub.count(Target::ManifestHead), hub.count(Target::ManifestGet)), (1, 0));
    assert_eq!(larder.get(TAG).await.header("x-larder-cache"), Some("hit"));
    assert_eq!(hub.count(Target::ManifestHead), 1);
}

#[tokio::test]
async fn a_tag_that_moved_is_followed_and_the_old_image_stays() {
    let hub = Hub::plain().await;
    let (old, new) = (Image::small(2), Image::small(3));
    let larder = cached(&hub, &old).await;
    hub.push(REPO, "latest", &new);
    assert_eq!(larder.get(TAG).await.body, new.manifest);
    hub.stop().await;
    let by_digest = larder.get(&format!("/v2/{REPO}/manifests/{}", old.digest())).await;
    assert_eq!(by_digest.body, old.manifest);
}

#[tokio::test]
async fn a_tag_moves_only_after_its_manifest_is_here() {
    let hub = Hub::plain().await;
    let (old, new) = (Image::small(4), Image::small(5));
    let larder = cached(&hub, &old).await;
    hub.push(REPO, "latest", &new);
    let rule = hub.fault(Target::ManifestGet, Fault::gateway(502));
    assert_stale(&larder.get(TAG).await, &old, "the new manifest cannot be had");
    rule.lift();
    larder.clock.advance(Duration::from_secs(31));
    larder.until_confirmed(TAG).await;
    assert_eq!(larder.get(TAG).await.body, new.manifest);
}

#[tokio::test]
async fn no_answer_of_a_sick_upstream_takes_a_cached_image_away() {
    let hub = Hub::plain().await;
    let image = Image::small(6);
    let larder = cached(&hub, &image).await;
    let shapes: Vec<(&str, Fault)> = vec![
        ("500", Fault::error(500, "UNKNOWN")),
        ("503 in HTML", Fault::gateway(503)),
        ("401", Fault::error(401, "UNAUTHORIZED")),
        ("403", Fault::error(403, "DENIED")),
        ("404", Fault::error(404, "MANIFEST_UNKNOWN")),
        ("404 in text", Fault::status(404, "text/plain", "404 page not found")),
        ("405 in HTML", Fault::gateway(405)),
        ("429 with Retry-After", Fault::too_many_requests(Some(3600))),
        ("429 in text", Fault::abuse_limit()),
        ("HTML with 200", Fault::captive_portal()),
        ("a black hole", Fault::BlackHole),
        ("a reset", Fault::Reset),
    ];
    for (case, fault) in shapes {
        let rule = hub.fault(Target::Manifest, fault);
        assert_stale(&larder.get(TAG).await, &image, case);
        let pieces = hub.count(Target::Cdn) + hub.count(Target::Blob);
        for digest in image.blob_digests() {
            assert_eq!(larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await.header("x-larder-cache"), Some("hit"));
        }
        assert_eq!(hub.count(Target::Cdn) + hub.count(Target::Blob), pieces, "{case}: a hit asks nobody");
        rule.lift();
        rule.release();
        // It is confirmed, by someone who asks or after the outage, before the next thing goes wrong.
        larder.until_confirmed(TAG).await;
        larder.clock.advance(EXPIRED);
    }
    assert_eq!(larder.get(TAG).await.header("x-larder-cache"), Some("revalidated"), "and then it is well again");
}

#[tokio::test]
async fn no_port_that_is_shut_silent_or_untrusted_takes_a_cached_image_away() {
    let hub = Hub::tls().await;
    let image = Image::small(7);
    let larder = cached(&hub, &image).await;
    for state in [PortState::Refusing, PortState::Silent, PortState::Untrusted] {
        for role in [Role::Registry, Role::Token] {
            hub.expire_tokens();
            hub.port_state(role, state).await;
            let answer = larder.get(TAG).await;
            assert_eq!(answer.body, image.manifest, "{role:?} {state:?}");
            // A token that is remembered does not need the token service.
            assert!(["stale", "revalidated"].contains(&answer.header("x-larder-cache").unwrap()));
            hub.port_state(role, PortState::Open).await;
            // Else the question of the recovery may end after the clock has moved, and the tag is young.
            larder.until_confirmed(TAG).await;
            larder.clock.advance(EXPIRED);
        }
    }
}

#[tokio::test]
async fn a_black_hole_costs_one_wait_and_not_one_per_client() {
    let hub = Hub::plain().await;
    let image = Image::small(8);
    let larder = cached(&hub, &image).await;
    hub.fault(Target::Everything, Fault::BlackHole);
    assert_stale(&larder.get(TAG).await, &image, "first");
    let asked = hub.requests().len();
    for _ in 0..20 {
        assert_stale(&larder.get(TAG).await, &image, "later");
    }
    assert_eq!(hub.requests().len(), asked, "the question is not repeated at once");
}

#[tokio::test]
async fn it_starts_without_upstream_and_serves_what_it_has() {
    let hub = Hub::plain().await;
    let image = Image::oci(9, &[200_000, 10]);
    let mut larder = cached(&hub, &image).await;
    larder.stop().await;
    hub.stop().await;
    larder.start().await;
    assert_eq!(larder.get("/v2/").await.status, 200);
    assert_stale(&larder.get(TAG).await, &image, "restarted");
    for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
        let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await;
        assert_eq!((answer.header("x-larder-cache"), &answer.body[..]), (Some("hit"), &content[..]));
    }
    assert_eq!(Call::get("/readyz").send(larder.admin()).await.status, 200);
}

#[tokio::test]
async fn what_is_not_cached_gets_an_honest_answer() {
    let hub = Hub::plain().await;
    let larder = cached(&hub, &Image::small(10)).await;
    hub.push(REPO, "other", &Image::small(11));
    hub.stop().await;
    let tag = larder.get("/v2/library/alpha/manifests/other").await;
    assert_eq!((tag.status, tag.json()["errors"][0]["code"].as_str()), (503, Some("UNAVAILABLE")));
    assert!(tag.header("retry-after").is_some());
    let message = tag.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("not cached") && message.contains("docker.io"), "{message}");
    // On a 5xx for a layer Docker tries again for 75 seconds; on a 404 it goes elsewhere at once.
    let layer = larder.get(&format!("/v2/{REPO}/blobs/{}", Digest::sha256(b"none"))).await;
    assert_eq!((layer.status, layer.json()["errors"][0]["code"].as_str()), (404, Some("BLOB_UNKNOWN")));
    assert_eq!(larder.head("/v2/library/alpha/manifests/other").await.status, 503);
}

#[tokio::test]
async fn upstreams_429_is_never_passed_on() {
    let hub = Hub::plain().await;
    hub.push(REPO, "latest", &Image::small(12));
    let larder = Larder::mirroring(&hub).await;
    hub.fault(Target::Manifest, Plan::from(Fault::too_many_requests(Some(60))).past_auth());
    assert_eq!(larder.get(TAG).await.status, 503);
}

#[tokio::test]
async fn an_image_comes_although_head_is_refused() {
    let hub = Hub::plain().await;
    let image = Image::small(13);
    hub.push(REPO, "latest", &image);
    for (case, fault) in [("401", Fault::error(401, "UNAUTHORIZED")), ("405", Fault::gateway(405))] {
        let larder = Larder::mirroring(&hub).await;
        let rule = hub.fault(Target::ManifestHead, fault);
        assert_eq!(larder.get(TAG).await.body, image.manifest, "{case}");
        rule.lift();
    }
}

#[tokio::test]
async fn a_fill_that_breaks_is_taken_up_where_it_broke() {
    let hub = Hub::plain().await;
    let content = noise(14, 3_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    for (case, fault) in [
        ("cut", Fault::ShortBody(1_000_000).times(1)),
        ("reset", Fault::ResetAfter(1_000_000).times(1)),
        ("stall", Fault::Stall(1_000_000).times(1)),
    ] {
        let larder = Larder::configured(&hub, "", "stall_timeout = \"500ms\"").await;
        let rule = hub.fault(Target::Cdn, fault);
        let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await;
        assert!(answer.complete && answer.body == content, "{case}: {} bytes", answer.body.len());
        let ranges: Vec<_> = hub
            .requests()
            .iter()
            .filter(|seen| seen.is(Target::Cdn))
            .map(|seen| seen.header(hyper::header::RANGE).map(str::to_owned))
            .collect();
        assert_eq!(ranges.len(), 2, "{case}");
        assert!(ranges[1].as_ref().unwrap().starts_with("bytes="), "{case}");
        rule.release();
        rule.lift();
        hub.clear();
    }
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_is_read_past_what_is_here() {
    let hub = Hub::plain().await;
    let content = noise(15, 2_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    hub.fault(Target::Cdn, Fault::ShortBody(700_000).times(1));
    hub.fault(
        |seen: &crate::support::hub::Seen| seen.is(Target::Cdn) && seen.header(hyper::header::RANGE).is_some(),
        Fault::IgnoreRange,
    );
    let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await;
    assert!(answer.complete && answer.body == content);
}
