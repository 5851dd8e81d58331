//! Ten thousand requests that no client of good will sends, and what every one of them must come to.
//!
//! The corpus is the same in every run. A failure names the request by its number: `corpus().nth(number)` is it.

mod alone;
mod answers;
mod corpus;
mod heads;
mod targets;

pub use answers::{CANARY, assert_all_answered};
pub use corpus::corpus;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use targets::{DIGEST, REPOSITORY};

use crate::support::hub::Hub;
use crate::support::larder::{Larder, files};

/// Panics in the library's own code, of whichever test.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| location.file().starts_with("src/")) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        before(panic);
    }));
}

/// The registry has more methods, and writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_answers_every_malformed_request_once_and_touches_nothing_outside_its_directory() {
    count_panics();
    let hub = Hub::plain().await;
    let open = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]\ndelete = [\"*\"]";
    let larder = Larder::hosting(&hub, open).await;
    let home = larder.data().parent().unwrap().to_owned();
    fs::write(home.join("canary"), CANARY).unwrap();
    // What is inside comes and goes.
    let outside = || {
        let entries = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
        let mut entries: Vec<_> = entries.filter(|path| *path != larder.data()).collect();
        entries.sort();
        entries.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = outside();
    assert_all_answered(larder.registry()).await;
    assert_eq!(before, outside(), "something outside the data directory changed");
    assert_eq!(hub.connections(), 0, "no upstream is asked about what is ours");
    assert_eq!(larder.get("/v2/").await.status, 200);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mirror_answers_every_malformed_request_once_and_touches_nothing_outside_its_directory() {
    count_panics();
    let hub = Hub::plain().await;
    hub.add_blob(REPOSITORY, "{}");
    let larder = Larder::mirroring(&hub).await;
    // So that ranges meet a blob.
    assert_eq!(larder.get(&format!("/v2/{REPOSITORY}/blobs/{DIGEST}")).await.text(), "{}");
    let home = larder.data().parent().unwrap().to_owned();
    fs::write(home.join("canary"), CANARY).unwrap();
    let outside = |path: &std::path::Path| !path.starts_with(larder.data());
    let before: Vec<_> = files(&home).into_iter().filter(|(path, _)| outside(path)).collect();

    let tally = assert_all_answered(larder.mirror()).await;
    assert!(tally.answers[&404] > 1000 && tally.answers[&400] > 500, "{tally:?}");
    assert!(tally.answers[&206] > 5 && tally.answers[&416] > 5 && tally.closed < 1000, "{tally:?}");

    let after: Vec<_> = files(&home).into_iter().filter(|(path, _)| outside(path)).collect();
    assert_eq!(before, after, "something outside the data directory changed");
    // What does not exist upstream leaves no trace, and fills no disk.
    assert_eq!(files(&larder.data().join("blobs")).len(), 1);
    assert_eq!(files(&larder.data().join("cached")).len(), 1);
    assert_eq!(larder.get("/v2/").await.status, 200);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}
