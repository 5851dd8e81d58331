//! The rate limit is for clients who wait: what nobody waits for stops when little is left, and a fallback's word is
//! believed only until the registry can be asked again.

use std::time::Duration;

use crate::stale::until_out_of_order;
use crate::support::client::get;
use crate::support::hub::{Hub, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";
const EXPIRED: Duration = Duration::from_secs(301);

fn manifest(reference: impl ToString) -> String {
    format!("/v2/{REPO}/manifests/{}", reference.to_string())
}

#[tokio::test]
async fn with_little_left_nothing_is_asked_that_no_client_waits_for() {
    let hub = Hub::plain().await;
    let index = Image::index_with_attestations(&[Image::small(1)]);
    hub.push(REPO, "latest", &index);
    hub.settings(|settings| settings.rate_limit = Some((100, 12)));
    let larder = Larder::configured(&hub, "", "reserve = 11").await;
    assert_eq!(larder.get(&manifest("latest")).await.body, index.manifest);
    let child = &index.children[0];
    assert_eq!(larder.get(&manifest(child.digest())).await.body, child.manifest, "a client who waits is served");
    larder.clock.advance(Duration::from_secs(200));
    larder.until_idle().await;
    assert_eq!(hub.count(Target::ManifestGet), 2, "the attestation is not fetched");
    assert_eq!(hub.count(Target::Cdn), 0, "nor is anything ahead of the client");
    assert_eq!(larder.get(&format!("/v2/{REPO}/blobs/{}", child.layer(0).0)).await.status, 200, "which it asks for");

    hub.clear();
    larder.clock.advance(Duration::from_secs(90));
    assert_eq!(larder.get(&manifest("latest")).await.header("x-larder-cache"), Some("hit"), "it is fresh");
    let spent = get(larder.admin(), "/api/budget").await.json()["spent"].as_array().unwrap().len();
    assert_eq!(spent, 2);
}

#[tokio::test]
async fn with_little_left_tags_are_served_as_they_are_and_say_so() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    hub.settings(|settings| settings.rate_limit = Some((100, 12)));
    let larder = Larder::configured(&hub, "tag_ttl = \"60s\"", "reserve = 11").await;
    assert_eq!(larder.get(&manifest("latest")).await.body, image.manifest);
    hub.clear();
    larder.clock.advance(Duration::from_secs(61));
    let answer = larder.get(&manifest("latest")).await;
    assert_eq!((answer.status, answer.header("x-larder-cache")), (200, Some("stale")));
    assert!(answer.header("warning").unwrap().contains("limits our rate"), "{:?}", answer.header("warning"));
    assert_eq!(hub.count(Target::ManifestHead), 0);
    larder.clock.advance(EXPIRED);
    assert_eq!(
        larder.get(&manifest("latest")).await.header("x-larder-cache"),
        Some("revalidated"),
        "it may be asked again"
    );
}

#[tokio::test]
async fn what_a_fallback_says_of_a_tag_is_marked_and_believed_until_the_registry_can_be_asked() {
    let (hub, other) = (Hub::plain().await, Hub::plain().await);
    let (old, new) = (Image::small(1), Image::small(2));
    other.push(REPO, "latest", &old);
    hub.push(REPO, "latest", &new);
    let larder = Larder::configured(&hub, "", &format!("fallback = [\"{}\"]", other.registry_url())).await;
    hub.stop().await;
    let answer = larder.get(&manifest("latest")).await;
    assert_eq!((answer.header("x-larder-cache"), &answer.body[..]), (Some("miss"), &old.manifest[..]));
    assert_eq!(larder.metric("larder_fallback_tags_total", "docker.io").await, 1.0);
    assert_eq!(larder.get(&manifest("latest")).await.header("x-larder-cache"), Some("hit"));
    // Before the tag is asked about again: what was asked in vain is not for a while, and that is all that is said of it then.
    while larder.metric("larder_upstream_up", "part=\"registry\"").await > 0.0 {
        larder.clock.advance(Duration::from_secs(1));
    }
    larder.clock.advance(Duration::from_secs(31));
    let answer = until_out_of_order(&larder, &manifest("latest")).await;
    assert_eq!(answer.body, old.manifest, "the fallback is not asked what the copy at hand means");
    for digest in old.blob_digests() {
        assert!(larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await.complete, "content may come from anywhere");
    }
    hub.start_again().await;
    larder.until_idle().await;
    while larder.get(&manifest("latest")).await.body != new.manifest {
        larder.clock.advance(Duration::from_secs(1));
    }
    larder.clock.advance(EXPIRED);
    assert_eq!(larder.get(&manifest("latest")).await.header("x-larder-cache"), Some("revalidated"));
    let spent = get(larder.admin(), "/api/budget").await.json()["spent"].as_array().unwrap().len();
    assert_eq!(spent, 1, "what a fallback sent is none of the budget's");
}
