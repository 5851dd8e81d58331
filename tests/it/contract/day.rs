//! A day of outages, in an hour of virtual time: they come, go and overlap, and clients pull throughout.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::shapes::Shape;
use crate::support::client::Answer;
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;

/// What comes and goes on a plain hub.
const SHAPES: &[Shape] = &[
    Shape::Refused,
    Shape::Silent,
    Shape::BlackHole,
    Shape::Reset,
    Shape::Error500,
    Shape::Gateway503,
    Shape::NotFoundText,
    Shape::NotFoundSpoken,
    Shape::MethodNotAllowed,
    Shape::Unauthorized,
    Shape::Portal,
    Shape::PullLimit,
    Shape::AbuseLimit,
    Shape::HeadRefused,
    Shape::TokenError,
    Shape::CdnRefused,
    Shape::CdnSilent,
    Shape::CdnDenies,
];
const IMAGES: usize = 20;
const MINUTES: u64 = 60;
const PULLS_PER_MINUTE: usize = 8;

fn repo(n: usize) -> String {
    format!("library/image-{n}")
}

fn image(n: usize) -> Image {
    let children = [Image::small(100 + n as u64), Image::small(200 + n as u64)];
    if n.is_multiple_of(2) { Image::index_with_attestations(&children) } else { Image::small(300 + n as u64) }
}

/// What Docker asks for, in its order; an index's first platform is ours. What was not as it must be, if anything.
async fn pull(larder: &Larder, n: usize, image: &Image, outcomes: &mut BTreeMap<String, u64>) -> Result<(), String> {
    let repo = repo(n);
    let mut note = |answer: &Answer| {
        let outcome = answer.header("x-larder-cache").unwrap_or("none").to_owned();
        *outcomes.entry(outcome).or_default() += 1;
    };
    let check = |what: &str, answer: &Answer, body: &[u8]| {
        let is_right = answer.status == 200 && answer.complete && answer.body == body;
        if is_right { Ok(()) } else { Err(format!("{repo} {what}: {} {}", answer.status, answer.text())) }
    };
    let head = larder.head(&format!("/v2/{repo}/manifests/latest")).await;
    note(&head);
    if head.status != 200 {
        return Err(format!("{repo} HEAD: {}", head.status));
    }
    let top = larder.get(&format!("/v2/{repo}/manifests/{}", image.digest())).await;
    note(&top);
    check("top", &top, &image.manifest)?;
    let child = image.children.first().unwrap_or(image);
    let manifest = larder.get(&format!("/v2/{repo}/manifests/{}", child.digest())).await;
    check("child", &manifest, &child.manifest)?;
    for (digest, content) in child.blob_digests().iter().zip(&child.blobs) {
        let answer = larder.get(&format!("/v2/{repo}/blobs/{digest}")).await;
        note(&answer);
        check("blob", &answer, content)?;
    }
    for attestation in image.children.iter().filter(|child| child.attests()) {
        let manifest = larder.get(&format!("/v2/{repo}/manifests/{}", attestation.digest())).await;
        check("attestation", &manifest, &attestation.manifest)?;
        let referrers = larder.get(&format!("/v2/{repo}/referrers/{}", attestation.digest())).await;
        if referrers.status != 200 {
            return Err(format!("{repo} referrers: {}", referrers.status));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_day_of_outages_fails_no_pull_of_a_cached_image() {
    let hub = Hub::plain().await;
    let limits = "connect_timeout = \"1s\"\nheader_timeout = \"2s\"\nstall_timeout = \"500ms\"";
    let larder = Larder::configured(&hub, "revalidate_timeout = \"200ms\"", limits).await;
    let images: Vec<Image> = (0..IMAGES).map(image).collect();
    let mut outcomes = BTreeMap::new();
    for (n, image) in images.iter().enumerate() {
        hub.push(&repo(n), "latest", image);
        pull(&larder, n, image, &mut outcomes).await.unwrap();
    }
    larder.until_idle().await;

    let mut random = StdRng::seed_from_u64(20_251_020);
    let (mut pulls, mut outages, mut failed) = (0, 0, Vec::new());
    let mut running: Option<(Shape, u64)> = None;
    outcomes.clear();
    for minute in 0..MINUTES {
        match running {
            Some((_, until)) if minute >= until => {
                Shape::heal(&hub).await;
                running = None;
            }
            // One shape gives way to another without a moment of health between them.
            Some((shape, until)) if random.random_bool(0.2) => {
                let other = *SHAPES.choose(&mut random).unwrap();
                if other != shape {
                    Shape::heal(&hub).await;
                    other.inflict(&hub).await;
                    (running, outages) = (Some((other, until)), outages + 1);
                }
            }
            None if random.random_bool(0.5) => {
                let shape = *SHAPES.choose(&mut random).unwrap();
                hub.expire_tokens();
                shape.inflict(&hub).await;
                (running, outages) = (Some((shape, minute + random.random_range(1..6))), outages + 1);
            }
            _ => {}
        }
        for _ in 0..PULLS_PER_MINUTE {
            let n = random.random_range(0..IMAGES);
            if let Err(problem) = pull(&larder, n, &images[n], &mut outcomes).await {
                failed.push(format!("minute {minute}, {running:?}: {problem}"));
            }
            pulls += 1;
            larder.clock.advance(Duration::from_secs(60) / PULLS_PER_MINUTE as u32);
        }
    }
    println!("{MINUTES} virtual minutes, {outages} outages, {pulls} pulls of cached images, {} failed", failed.len());
    println!("answers: {outcomes:?}");
    assert!(outages > 10, "a quiet day proves nothing");
    assert!(outcomes.get("stale").is_some_and(|stale| *stale > 0), "{outcomes:?}");
    assert!(failed.is_empty(), "{} pulls failed:\n{}", failed.len(), failed.join("\n"));
}
