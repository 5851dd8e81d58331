//! After an outage: nobody waits, upstream is not stormed, and in the end everything is confirmed.

use std::time::Duration;

use crate::stale::until_out_of_order;
use crate::support::hub::{Fault, Hub, Plan, Seen, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";
const EXPIRED: Duration = Duration::from_secs(301);

fn tag(tag: &str) -> String {
    format!("/v2/{REPO}/manifests/{tag}")
}

#[tokio::test]
async fn tags_are_confirmed_four_at_a_time_and_nobody_waits_for_that() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    let names: Vec<String> = (0..12).map(|n| format!("v{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["latest"]) {
        hub.push(REPO, name, &image);
    }
    let larder = Larder::configured(&hub, "revalidate_timeout = \"80s\"", "header_timeout = \"90s\"").await;
    // The last one that is answered is what the probe will ask about.
    for name in names.iter().map(String::as_str).chain(["latest"]) {
        assert_eq!(larder.get(&tag(name)).await.status, 200);
    }
    larder.until_idle().await;
    larder.clock.advance(EXPIRED);
    hub.stop().await;
    until_out_of_order(&larder, &tag("latest")).await;
    for name in &names {
        assert_eq!(larder.get(&tag(name)).await.header("x-larder-cache"), Some("stale"));
    }
    let favourite = &names[7];
    for _ in 0..5 {
        larder.get(&tag(favourite)).await;
    }

    let is_ours = |seen: &Seen| seen.is(Target::ManifestHead) && !seen.is_for("latest");
    let held = hub.fault(is_ours, Plan::from(Fault::Hold));
    hub.clear();
    hub.start_again().await;
    larder.until_up().await;
    held.until_hit(1).await;
    for name in &names {
        let answer = larder.get(&tag(name)).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]));
        assert_eq!(answer.header("x-larder-cache"), Some("stale"), "{name}: nobody waits for its turn");
    }
    assert!(hub.count(is_ours) <= 4, "{} at one time", hub.count(is_ours));
    held.lift();
    held.release();
    for name in &names {
        while larder.get(&tag(name)).await.header("x-larder-cache") != Some("hit") {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(hub.count(is_ours), names.len(), "each once");
    let order: Vec<Seen> = hub.requests().into_iter().filter(is_ours).collect();
    assert!(order[..4].iter().any(|seen| seen.is_for(favourite)), "the most used are among the first");
    assert_eq!(hub.count(Target::ManifestGet), 0, "no pull was spent");
}
