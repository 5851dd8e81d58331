//! What is pinned is kept fresh and whole by the server itself: no client asks for anything here unless it says so.

use std::time::Duration;

use larder::oci::Digest;
use serde_json::{Value, json};

use crate::stale::until_out_of_order;
use crate::support::client::{Call, PATIENCE, get};
use crate::support::hub::{Fault, Hub, Plan, Seen, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";
/// The lifetime of a tag, and a second.
const EXPIRED: Duration = Duration::from_secs(301);
/// How far time goes on between two looks of a test.
const STEP: Duration = Duration::from_secs(10);

fn manifest(repository: &str, reference: impl ToString) -> String {
    format!("/v2/{repository}/manifests/{}", reference.to_string())
}

async fn pin(larder: &Larder, pattern: &str) {
    let wish = json!({"pattern": pattern}).to_string();
    let pinned = Call::new("POST", "/api/pins").header("Content-Type", "application/json").body(wish.as_bytes());
    let pinned = pinned.send(larder.admin()).await;
    assert_eq!(pinned.status, 200, "{}", pinned.text());
}

async fn unpin(larder: &Larder, pattern: &str) {
    let unpin = Call::new("DELETE", &format!("/api/pins?pattern={pattern}")).header("X-Larder-Request", "1");
    assert_eq!(unpin.send(larder.admin()).await.status, 200);
}

/// A client pulls an image, and of an index the platforms that are told by their place in it.
async fn pull(larder: &Larder, repository: &str, tag: &str, image: &Image, platforms: &[usize]) {
    assert_eq!(larder.get(&manifest(repository, tag)).await.body, image.manifest);
    let children = platforms.iter().map(|n| &image.children[*n]);
    for part in children.clone() {
        assert_eq!(larder.get(&manifest(repository, part.digest())).await.body, part.manifest);
    }
    for digest in children.chain([image]).flat_map(Image::blob_digests) {
        assert!(larder.get(&format!("/v2/{repository}/blobs/{digest}")).await.complete);
    }
    larder.until_idle().await;
}

/// What `larder ls` would say of the image that a tag means.
async fn told(larder: &Larder, name: &str) -> Value {
    let images = get(larder.admin(), &format!("/api/images?q={name}")).await.json();
    let (_, tag) = name.rsplit_once(':').unwrap();
    let is_meant = |image: &&Value| image["tags"].as_array().unwrap().iter().any(|other| other == tag);
    images.as_array().into_iter().flatten().find(is_meant).cloned().unwrap_or_default()
}

/// Whether a tag means this image, of which all is here for so many platforms.
async fn is_whole(larder: &Larder, name: &str, image: &Image, platforms: usize) -> bool {
    let told = told(larder, name).await;
    let has = told["platforms"].as_array().map_or(0, Vec::len);
    told["digest"] == image.digest().to_string() && told["complete"] == true && has == platforms
}

/// Moves time on until `condition` holds, and says how far.
async fn until(larder: &Larder, condition: impl AsyncFn() -> bool) -> Duration {
    until_by(larder, STEP, condition).await
}

async fn until_by(larder: &Larder, step: Duration, condition: impl AsyncFn() -> bool) -> Duration {
    let mut moved = Duration::ZERO;
    let wait = async {
        while !condition().await {
            larder.clock.advance(step);
            moved += step;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain");
    moved
}

fn heads(hub: &Hub, tag: &str) -> usize {
    hub.requests().iter().filter(|seen| seen.is(Target::ManifestHead) && seen.is_for(tag)).count()
}

/// A mirror that has an image, whose repository is pinned.
async fn with_pinned(hub: &Hub, image: &Image) -> Larder {
    hub.push(REPO, "latest", image);
    let larder = Larder::mirroring(hub).await;
    pull(&larder, REPO, "latest", image, &[]).await;
    pin(&larder, "alpha").await;
    larder
}

/// An image for two platforms, and what its tag means later.
fn old_and_new() -> (Image, Image) {
    (Image::index(&[Image::small(1), Image::small(2)]), Image::index(&[Image::small(3), Image::small(4)]))
}

#[tokio::test]
async fn a_pinned_tag_that_moved_is_followed_for_the_platforms_that_were_here() {
    let hub = Hub::plain().await;
    let old = Image::index(&[Image::small(1), Image::small(2), Image::small(3)]);
    let new = Image::index_with_attestations(&[Image::small(4), Image::small(5), Image::small(6)]);
    hub.push(REPO, "latest", &old);
    let larder = Larder::mirroring(&hub).await;
    pull(&larder, REPO, "latest", &old, &[0, 1]).await;
    pin(&larder, "alpha").await;
    hub.push(REPO, "latest", &new);
    hub.clear();
    until(&larder, async || is_whole(&larder, "alpha:latest", &new, 2).await).await;
    let fetched: Vec<Digest> = [&new, &new.children[0], &new.children[1]].map(Image::digest).into();
    let statements = || new.children.iter().filter(|child| child.attests()).map(Image::digest);
    for seen in hub.requests().iter().filter(|seen| seen.is(Target::ManifestGet)) {
        assert!(fetched.iter().copied().chain(statements()).any(|digest| seen.is_for(digest)), "{seen:?}");
    }
    assert_eq!(hub.count(Target::ManifestGet), 3 + statements().count(), "each once, and no other platform");

    hub.stop().await;
    larder.clock.advance(EXPIRED);
    // An outage finds the new image.
    pull(&larder, REPO, "latest", &new, &[0, 1]).await;
}

#[tokio::test]
async fn while_nothing_moved_a_tag_costs_one_head_for_its_lifetime_and_no_pull() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    let larder = Larder::configured(&hub, "pin = [\"library/al*:*\"]", "").await;
    pull(&larder, REPO, "latest", &image, &[]).await;
    hub.clear();
    let moved = until(&larder, async || heads(&hub, "latest") >= 4).await;
    assert!(heads(&hub, "latest") as u64 <= 1 + moved.as_secs() / 300, "{} in {moved:?}", heads(&hub, "latest"));
    assert_eq!(hub.count(Target::ManifestGet) + hub.count(Target::Blob), 0);
    let answer = larder.get(&manifest(REPO, "latest")).await;
    assert!(
        matches!(answer.header("x-larder-cache"), Some("hit" | "revalidated")),
        "{:?}",
        answer.header("x-larder-cache")
    );
}

#[tokio::test]
async fn the_tag_stays_with_the_old_image_until_the_new_one_is_whole() {
    let hub = Hub::plain().await;
    let (old, new) = (Image::small(1), Image::small(2));
    let larder = with_pinned(&hub, &old).await;
    hub.push(REPO, "latest", &new);
    let last = new.layer(1).0;
    let held = hub.fault(move |seen: &Seen| seen.is(Target::Cdn) && seen.is_for(last), Plan::from(Fault::Hold));
    until(&larder, async || held.hits() > 0).await;
    assert!(is_whole(&larder, "alpha:latest", &old, 1).await);
    let by_digest = larder.get(&manifest(REPO, new.digest())).await;
    assert_eq!(by_digest.header("x-larder-cache"), Some("hit"), "although its manifest is here");
    held.lift();
    held.release();
    until(&larder, async || is_whole(&larder, "alpha:latest", &new, 1).await).await;
}

#[tokio::test]
async fn an_image_of_which_a_client_took_only_the_manifests_is_completed() {
    let hub = Hub::plain().await;
    let index = Image::index(&[Image::small(1), Image::small(2), Image::small(3)]);
    hub.push(REPO, "latest", &index);
    let larder = Larder::mirroring(&hub).await;
    let arm = &index.children[1];
    for reference in ["latest".to_owned(), arm.digest().to_string()] {
        assert_eq!(larder.head(&manifest(REPO, reference)).await.status, 200);
    }
    assert_eq!(hub.count(Target::Cdn), 0, "whoever only looks fetches nothing");
    pin(&larder, "alpha:*").await;
    until(&larder, async || is_whole(&larder, "alpha:latest", &index, 1).await).await;
    assert_eq!(told(&larder, "alpha:latest").await["platforms"], json!(["linux/arm64"]));
    assert_eq!(hub.count(Target::ManifestGet), 2, "no other platform");
}

#[tokio::test]
async fn what_is_named_and_not_here_is_fetched_for_the_platforms_that_are_pulled_here() {
    let hub = Hub::plain().await;
    let both = |n: u64| Image::index(&[Image::small(n), Image::small(n + 1)]);
    let (pulled, tagged, by_digest) = (both(1), both(10), both(20));
    hub.push("library/other", "latest", &pulled);
    hub.push(REPO, "3.20", &tagged);
    hub.push_untagged(REPO, &by_digest);
    let larder = Larder::mirroring(&hub).await;
    pull(&larder, "library/other", "latest", &pulled, &[1]).await;
    pin(&larder, "alpha:3.20").await;
    until(&larder, async || is_whole(&larder, "alpha:3.20", &tagged, 1).await).await;
    assert_eq!(told(&larder, "alpha:3.20").await["platforms"], json!(["linux/arm64"]));
    pin(&larder, &format!("alpha@{}", by_digest.digest())).await;
    let (last, _) = by_digest.children[1].layer(1);
    hub.until_count(1, move |seen: &Seen| seen.is(Target::Cdn) && seen.is_for(last)).await;
    let here = async || {
        let images = get(larder.admin(), &format!("/api/images?q={}", by_digest.digest())).await.json();
        images[0]["complete"] == true && images[0]["platforms"] == json!(["linux/arm64"])
    };
    until(&larder, here).await;
}

#[tokio::test]
async fn in_an_empty_cache_what_the_configuration_names_is_fetched_for_this_machine() {
    let hub = Hub::plain().await;
    let index = Image::index(&[Image::small(1), Image::small(2), Image::small(3)]);
    hub.push(REPO, "latest", &index);
    let larder = Larder::configured(&hub, "pin = [\"alpha\"]", "").await;
    until(&larder, async || is_whole(&larder, "alpha:latest", &index, 1).await).await;
    let this_machine = larder::oci::Platform::of_this_machine().to_string();
    assert_eq!(told(&larder, "alpha:latest").await["platforms"], json!([this_machine]));
}

#[tokio::test]
async fn what_a_client_moved_first_is_completed_for_the_others() {
    let hub = Hub::plain().await;
    let (old, new) = old_and_new();
    hub.push(REPO, "latest", &old);
    let larder = Larder::mirroring(&hub).await;
    pull(&larder, REPO, "latest", &old, &[0, 1]).await;
    let asked = heads(&hub, "latest");
    pin(&larder, "alpha").await;
    // It has been looked at: for which platforms is known.
    until(&larder, async || heads(&hub, "latest") > asked).await;
    hub.push(REPO, "latest", &new);
    larder.clock.advance(EXPIRED);
    pull(&larder, REPO, "latest", &new, &[0]).await;
    until(&larder, async || is_whole(&larder, "alpha:latest", &new, 2).await).await;
}

#[tokio::test]
async fn an_answer_that_was_overtaken_moves_no_tag_back() {
    for is_gone in [false, true] {
        let hub = Hub::plain().await;
        let (old, new) = (Image::small(1), Image::small(2));
        let larder = with_pinned(&hub, &old).await;
        if is_gone {
            hub.remove_tag(REPO, "latest");
        }
        let held = hub.fault(Target::ManifestHead, Fault::Hold.times(1));
        until(&larder, async || held.hits() > 0).await;
        hub.push(REPO, "latest", &new);
        // A client need not wait for the tag to expire: that is why it was asked about.
        larder.clock.advance(Duration::from_secs(1));
        pull(&larder, REPO, "latest", &new, &[]).await;
        held.release();
        // Nothing tells when the late answer has been read: for longer than that takes, it must not be believed.
        for _ in 0..50 {
            assert_eq!(larder.get(&manifest(REPO, "latest")).await.body, new.manifest, "gone: {is_gone}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_asked_of_an_upstream_whose_budget_is_down_to_the_reserve() {
    let (poor, rich) = (Hub::plain().await, Hub::plain().await);
    let image = Image::small(1);
    for hub in [&poor, &rich] {
        hub.push(REPO, "latest", &image);
    }
    poor.settings(|settings| settings.rate_limit = Some((100, 12)));
    let cache = "tag_ttl = \"10s\"\npin = [\"**:*\"]";
    let larder =
        Larder::mirroring_all(&[("docker.io", &poor, "reserve = 11"), ("rich.example", &rich, "")], cache).await;
    assert_eq!(larder.get(&manifest(REPO, "latest")).await.status, 200);
    poor.clear();
    assert_eq!(larder.get(&manifest(&format!("rich.example/{REPO}"), "latest")).await.status, 200);
    let before = heads(&rich, "latest");
    // What is left is believed for some minutes; two rounds in that time must have passed the tag by.
    let moved = until_by(&larder, Duration::from_secs(1), async || heads(&rich, "latest") >= before + 2).await;
    if moved < Duration::from_secs(240) {
        assert_eq!(poor.count(Target::Manifest), 0, "in {moved:?}");
    }
}

#[tokio::test]
async fn in_an_outage_nothing_is_asked_and_after_it_a_pinned_tag_is_confirmed_by_itself() {
    let (hub, other) = (Hub::plain().await, Hub::plain().await);
    let (image, new) = (Image::small(1), Image::small(2));
    for tag in ["v1", "latest"] {
        hub.push(REPO, tag, &image);
    }
    other.push(REPO, "latest", &image);
    let hubs = [("docker.io", &hub, ""), ("other.example", &other, "")];
    let larder = Larder::mirroring_all(&hubs, "revalidate_timeout = \"80s\"\npin = [\"alpha:v1\", \"**:*\"]").await;
    // The last one that is answered is what the probe will ask about.
    for tag in ["v1", "latest"] {
        pull(&larder, REPO, tag, &image, &[]).await;
    }
    pull(&larder, &format!("other.example/{REPO}"), "latest", &image, &[]).await;
    hub.push(REPO, "v1", &new);
    let rule = hub.fault(Target::Everything, Fault::gateway(503));
    larder.clock.advance(EXPIRED);
    until_out_of_order(&larder, &manifest(REPO, "latest")).await;
    // What was under way when the outage was noticed has ended by then.
    let before = heads(&other, "latest");
    until(&larder, async || heads(&other, "latest") >= before + 2).await;
    hub.clear();
    let before = heads(&other, "latest");
    until(&larder, async || heads(&other, "latest") >= before + 3).await;
    assert_eq!(hub.count(|seen: &Seen| seen.is_for("v1")), 0);
    rule.lift();
    until(&larder, async || is_whole(&larder, "library/alpha:v1", &new, 1).await).await;
}

#[tokio::test]
async fn what_is_not_pinned_any_more_is_left_alone() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    for tag in ["one", "two"] {
        hub.push(REPO, tag, &image);
    }
    let larder = Larder::mirroring(&hub).await;
    for tag in ["one", "two"] {
        pull(&larder, REPO, tag, &image, &[]).await;
        pin(&larder, &format!("alpha:{tag}")).await;
    }
    until(&larder, async || heads(&hub, "one") >= 2 && heads(&hub, "two") >= 2).await;
    unpin(&larder, "alpha:one").await;
    // The look that was under way may still end.
    let other = heads(&hub, "two");
    until(&larder, async || heads(&hub, "two") >= other + 2).await;
    let (before, other) = (heads(&hub, "one"), heads(&hub, "two"));
    until(&larder, async || heads(&hub, "two") >= other + 3).await;
    assert_eq!(heads(&hub, "one"), before);
}

#[tokio::test]
async fn a_restart_goes_on_with_it() {
    let hub = Hub::plain().await;
    let (old, new) = old_and_new();
    hub.push(REPO, "latest", &old);
    let mut larder = Larder::mirroring(&hub).await;
    pull(&larder, REPO, "latest", &old, &[1]).await;
    pin(&larder, "alpha").await;
    larder.stop().await;
    hub.push(REPO, "latest", &new);
    larder.clock.advance(EXPIRED);
    larder.start().await;
    until(&larder, async || is_whole(&larder, "alpha:latest", &new, 1).await).await;
    assert_eq!(told(&larder, "alpha:latest").await["platforms"], json!(["linux/arm64"]));
}

#[tokio::test]
async fn names_that_are_ours_or_denied_are_never_asked_about() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    for name in ["team/app", "evil/app", REPO] {
        hub.push(name, "v1", &image);
    }
    let rule =
        "[registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"pull\"\n[[registry.repository]]\npattern = \"team/**\"\n";
    let pins =
        "pin = [\"team/app:v1\", \"docker.io/team/app:v1\", \"evil/app:v1\", \"docker.io/evil/app:v1\", \"alpha:v1\"]";
    let larder = Larder::configured(&hub, pins, &format!("deny = [\"evil/**\"]\n{rule}")).await;
    until(&larder, async || heads(&hub, "v1") >= 3).await;
    let is_foreign = |seen: &Seen| seen.endpoint.repo().is_some_and(|repo| repo != REPO);
    assert_eq!(hub.count(is_foreign), 0);
}

#[tokio::test]
async fn what_finds_no_room_is_not_fetched_again_and_again() {
    let hub = Hub::plain().await;
    let image = Image::oci(1, &[4 << 20]);
    hub.push(REPO, "latest", &image);
    let larder = Larder::configured(&hub, "max_size = \"1MiB\"\nmin_free = \"0\"\npin = [\"alpha\"]", "").await;
    let (layer, _) = image.layer(0);
    let asked = || hub.count(move |seen: &Seen| seen.is(Target::Blob) && seen.is_for(layer));
    until(&larder, async || asked() > 0).await;
    let hours = larder.clock.tick() + Duration::from_secs(7200);
    until(&larder, async || larder.clock.tick() >= hours).await;
    assert!(asked() <= 16, "asked {} times", asked());
}
