//! Cached pulls at 500 requests per second while upstream turns into a black hole and back, twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::interval;

use crate::support::client::Answer;
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const IMAGES: usize = 50;
const RATE: u32 = 500;
/// Each phase: so many requests.
const REQUESTS: usize = 1000;

fn tag(n: usize) -> String {
    format!("/v2/library/image-{}/manifests/latest", n % IMAGES)
}

/// Sends requests at a fixed rate, whether the ones before are answered or not. How long each took, the worst last.
async fn load(larder: &Arc<Larder>, images: &Arc<Vec<Image>>) -> (Vec<Duration>, Vec<String>) {
    let (mut calls, mut ticks) = (JoinSet::new(), interval(Duration::from_secs(1) / RATE));
    for n in 0..REQUESTS {
        ticks.tick().await;
        let (larder, images) = (larder.clone(), images.clone());
        calls.spawn(async move {
            let began = Instant::now();
            let answer: Answer = larder.get(&tag(n)).await;
            let is_right = answer.status == 200 && answer.body == images[n % IMAGES].manifest;
            (began.elapsed(), (!is_right).then(|| format!("{}: {} {}", tag(n), answer.status, answer.text())))
        });
    }
    let (mut took, wrong): (Vec<Duration>, Vec<Option<String>>) = calls.join_all().await.into_iter().unzip();
    took.sort_unstable();
    (took, wrong.into_iter().flatten().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_that_comes_and_goes_fails_no_cached_pull() {
    let hub = Hub::plain().await;
    let limits = "connect_timeout = \"1s\"\nheader_timeout = \"2s\"";
    let larder = Arc::new(Larder::configured(&hub, "revalidate_timeout = \"300ms\"", limits).await);
    let images: Arc<Vec<Image>> = Arc::new((0..IMAGES as u64).map(Image::small).collect());
    for (n, image) in images.iter().enumerate() {
        hub.push(&format!("library/image-{n}"), "latest", image);
        assert_eq!(larder.get(&tag(n)).await.body, image.manifest);
    }
    larder.until_idle().await;
    for phase in ["well", "black hole", "well again", "black hole again", "and well"] {
        // Every tag is due for a question at once.
        larder.clock.advance(Duration::from_secs(301));
        let rule = phase.starts_with("black").then(|| hub.fault(Target::Everything, Fault::BlackHole));
        let (took, wrong) = load(&larder, &images).await;
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        println!("{phase}: p50 {:?}, p99 {:?}, worst {:?}", at(0.5), at(0.99), at(1.0));
        assert!(wrong.is_empty(), "{phase}: {} wrong answers: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        if let Some(rule) = rule {
            assert!(rule.hits() < REQUESTS as u64 / 4, "{phase}: upstream was asked {} times", rule.hits());
            hub.heal();
        }
    }
}
