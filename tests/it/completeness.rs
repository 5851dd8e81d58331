//! An image of which a part is missing is not offered while that part cannot be had, and one that is whole always is.

use std::time::Duration;

use crate::stale::until_out_of_order;
use crate::support::client::Answer;
use crate::support::hub::{Fault, Hub, Plan, PortState, Role, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";
const EXPIRED: Duration = Duration::from_secs(301);

fn manifest(reference: impl ToString) -> String {
    format!("/v2/{REPO}/manifests/{}", reference.to_string())
}

async fn blob(larder: &Larder, image: &Image, n: usize) {
    let answer = larder.get(&format!("/v2/{REPO}/blobs/{}", image.blob_digests()[n])).await;
    assert!(answer.complete && answer.status == 200);
}

/// No attestations behind the clients' backs. Manifests are asked for by HEAD, so that nothing is fetched ahead.
async fn mirror(hub: &Hub) -> Larder {
    Larder::configured(hub, "complete_indexes = false\nrevalidate_timeout = \"80s\"", "").await
}

/// The registry refuses connections, and that is known.
async fn goes_down(hub: &Hub, larder: &Larder) {
    larder.until_idle().await;
    larder.clock.advance(EXPIRED);
    hub.stop().await;
    until_out_of_order(larder, &manifest("nothing")).await;
}

fn assert_refused(answer: &Answer, part: &str) {
    assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (503, Some("UNAVAILABLE")), "{part}");
    let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(part) && message.contains("docker.io"), "{message}");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn an_image_without_a_part_is_refused_by_tag_and_by_digest_until_upstream_is_back() {
    for (case, (have, part)) in [(&[][..], "config"), (&[0, 1][..], "layer")].into_iter().enumerate() {
        let hub = Hub::plain().await;
        let image = Image::small(case as u64);
        hub.push(REPO, "latest", &image);
        let larder = mirror(&hub).await;
        assert_eq!(larder.head(&manifest("latest")).await.status, 200);
        for &n in have {
            blob(&larder, &image, n).await;
        }
        goes_down(&hub, &larder).await;
        for reference in ["latest".to_owned(), image.digest().to_string()] {
            assert_refused(&larder.get(&manifest(&reference)).await, part);
            assert_eq!(larder.head(&manifest(&reference)).await.status, 503);
        }
        assert_eq!(larder.metric("larder_incomplete_refused_total", &format!("missing=\"{part}\"")).await, 4.0);
        hub.start_again().await;
        larder.until_up().await;
        assert_eq!(larder.get(&manifest("latest")).await.body, image.manifest, "and then it is offered again");
    }
}

#[tokio::test]
async fn an_image_that_was_whole_is_refused_at_once_when_it_has_lost_a_part() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    let larder = mirror(&hub).await;
    assert_eq!(larder.head(&manifest("latest")).await.status, 200);
    for n in 0..3 {
        blob(&larder, &image, n).await;
    }
    goes_down(&hub, &larder).await;
    assert_eq!(larder.get(&manifest("latest")).await.body, image.manifest);
    let hex = image.blob_digests()[1].hex();
    let path = larder.data().join("blobs/sha256").join(&hex[..2]).join(&hex);
    std::fs::File::options().write(true).open(path).unwrap().set_len(3).unwrap();
    let layer = larder.get(&format!("/v2/{REPO}/blobs/sha256:{hex}")).await;
    assert_eq!(layer.status, 404, "it was cut short, and cannot be had again now");
    assert_refused(&larder.get(&manifest("latest")).await, "layer");
}

#[tokio::test]
async fn an_index_is_offered_for_the_sake_of_one_platform_and_the_others_are_refused_by_themselves() {
    let hub = Hub::plain().await;
    let images = [Image::small(1), Image::small(2)];
    let index = Image::index_with_attestations(&images);
    hub.push(REPO, "latest", &index);
    let larder = mirror(&hub).await;
    for reference in ["latest".to_owned(), images[0].digest().to_string(), images[1].digest().to_string()] {
        assert_eq!(larder.head(&manifest(reference)).await.status, 200);
    }
    for n in 0..3 {
        blob(&larder, &images[0], n).await;
    }
    goes_down(&hub, &larder).await;
    assert_eq!(larder.get(&manifest("latest")).await.body, index.manifest, "older clients never ask for attestations");
    assert_eq!(larder.get(&manifest(images[0].digest())).await.body, images[0].manifest);
    assert_refused(&larder.get(&manifest(images[1].digest())).await, "config");
    let attestation = index.children.iter().find(|child| child.attests()).unwrap();
    assert_eq!(larder.get(&manifest(attestation.digest())).await.status, 503);
}

#[tokio::test]
async fn an_index_without_a_whole_platform_is_refused() {
    let hub = Hub::plain().await;
    let images = [Image::small(1), Image::small(2)];
    hub.push(REPO, "bare", &Image::index(&images));
    hub.push(REPO, "half", &Image::index(&[Image::small(3)]));
    let larder = mirror(&hub).await;
    for reference in ["bare".to_owned(), "half".to_owned(), Image::small(3).digest().to_string()] {
        assert_eq!(larder.head(&manifest(reference)).await.status, 200);
    }
    goes_down(&hub, &larder).await;
    assert_refused(&larder.get(&manifest("bare")).await, "manifest");
    assert_refused(&larder.get(&manifest("half")).await, "config");
}

#[tokio::test]
async fn an_artifact_and_an_image_with_layers_from_elsewhere_are_judged_by_what_they_need() {
    let hub = Hub::plain().await;
    let subject = Image::small(1);
    let artifact = Image::referrer(2, "application/x.signature", &subject);
    hub.push(REPO, "artifact", &artifact);
    let mut foreign: serde_json::Value = serde_json::from_slice(&Image::small(3).manifest).unwrap();
    foreign["layers"][1]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    let windows = Image::from_json(Image::small(3).media_type, &foreign, Image::small(3).blobs);
    hub.push(REPO, "windows", &windows);
    let larder = mirror(&hub).await;
    for (name, image, parts) in [("artifact", &artifact, 2), ("windows", &windows, 2)] {
        assert_eq!(larder.head(&manifest(name)).await.status, 200);
        for n in 0..parts {
            blob(&larder, image, n).await;
        }
    }
    goes_down(&hub, &larder).await;
    assert_eq!(larder.get(&manifest("artifact")).await.body, artifact.manifest);
    assert_eq!(larder.get(&manifest("windows")).await.body, windows.manifest, "its other layer is not ours to have");
}

#[tokio::test]
async fn a_layer_whose_fill_is_under_way_is_not_missing() {
    let hub = Hub::plain().await;
    let image = Image::oci(1, &[2_000_000]);
    hub.push(REPO, "latest", &image);
    let larder = mirror(&hub).await;
    assert_eq!(larder.head(&manifest("latest")).await.status, 200);
    blob(&larder, &image, 0).await;
    let layer = image.layer(0).0;
    let stalled = hub.fault(
        move |seen: &crate::support::hub::Seen| seen.is(Target::Cdn) && seen.is_for(layer),
        Fault::Stall(1_000_000),
    );
    let path = format!("/v2/{REPO}/blobs/{layer}");
    let mirror = larder.mirror();
    let pull = tokio::spawn(async move { crate::support::client::get(mirror, &path).await });
    stalled.until_hit(1).await;
    larder.clock.advance(EXPIRED);
    hub.port_state(Role::Registry, PortState::Refusing).await;
    until_out_of_order(&larder, &manifest("nothing")).await;
    assert_eq!(larder.get(&manifest("latest")).await.body, image.manifest);
    stalled.release();
    assert!(pull.await.unwrap().complete);
}

#[tokio::test]
async fn one_failed_question_is_enough_to_keep_half_an_image_back_and_a_limited_rate_is_not() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    for (case, fault, status) in [("503", Fault::gateway(503), 503), ("429", Fault::too_many_requests(None), 200)] {
        let larder = mirror(&hub).await;
        assert_eq!(larder.head(&manifest("latest")).await.status, 200);
        larder.clock.advance(EXPIRED);
        let rule = hub.fault(Target::Manifest, Plan::from(fault).past_auth());
        assert_eq!(larder.head(&manifest("latest")).await.status, status, "{case}");
        rule.lift();
    }
}
