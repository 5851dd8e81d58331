//! Ten thousand requests that no client of good will sends, and what every one of them must come to.
//!
//! The corpus is the same in every run. A failure names the request by its number: `corpus().nth(number)` is it.

mod alone;
mod answers;
mod corpus;
mod heads;
mod targets;

pub use answers::assert_all_answered;
pub use corpus::corpus;

use std::fs;

use crate::support::hub::Hub;
use crate::support::larder::{Larder, files};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mirror_answers_every_malformed_request_once_and_touches_nothing_outside_its_directory() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let home = larder.data().parent().unwrap().to_owned();
    fs::write(home.join("canary"), "nobody may read this canary").unwrap();
    let outside = |path: &std::path::Path| !path.starts_with(larder.data());
    let before: Vec<_> = files(&home).into_iter().filter(|(path, _)| outside(path)).collect();

    let tally = assert_all_answered(larder.mirror()).await;
    assert!(tally.answers[&404] > 1000 && tally.answers[&400] > 500, "{tally:?}");

    let after: Vec<_> = files(&home).into_iter().filter(|(path, _)| outside(path)).collect();
    assert_eq!(before, after, "something outside the data directory changed");
    let blobs = files(&larder.data().join("blobs"));
    assert_eq!(blobs.len(), 0, "nothing of this upstream can be kept");
    assert_eq!(larder.get("/v2/").await.status, 200);
}
