//! A push that takes longer than its token is good for: what is asked with a token that has expired gets 401 and a
//! challenge, and the push is done in the end. Time is moved by hand, in the middle of the push.

use std::time::Duration;

use super::containerd::{self, Containerd};
use super::docker::{self, Docker};
use super::images;
use super::larder::Larder as Mirror;
use super::podman::{self, Podman};
use super::pushes::{ANNA, Pusher};
use super::registry::Registry;
use super::skopeo::{self, Skopeo};
use super::{Client, ready};
use crate::support::hub::Hub;
use crate::support::larder::Larder;

const SOURCE: &str = "docker.io/org/app:v1";

/// What a client does when it is told that its token is no good any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    GoesOn,
    /// It says so, and the next push finds there what this one has brought.
    GivesUp,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_pushes_for_longer_than_its_token_is_good() {
    if ready(&docker::PROGRAMS) {
        expires_meanwhile(Docker::using, Then::GivesUp).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_pushes_for_longer_than_its_token_is_good() {
    if ready(&podman::PROGRAMS) {
        expires_meanwhile(Podman::using, Then::GivesUp).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_for_longer_than_its_token_is_good() {
    if ready(&skopeo::PROGRAMS) {
        expires_meanwhile(Skopeo::using, Then::GivesUp).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_pushes_for_longer_than_its_token_is_good() {
    if ready(&containerd::PROGRAMS) {
        expires_meanwhile(Containerd::using, Then::GoesOn).await;
    }
}

async fn expires_meanwhile<C: Client + Pusher + Send + 'static>(start: fn(&Mirror) -> C, then: Then) {
    let home = tempfile::tempdir().unwrap();
    let accounts = home.path().join("htpasswd");
    std::fs::write(&accounts, format!("{}:{}\n", ANNA.user, bcrypt::hash(ANNA.password, 4).unwrap())).unwrap();
    // Where somebody may pull without an account tokens are given, and not passwords asked for.
    let rules = format!(
        "htpasswd = {accounts:?}\nanonymous = \"pull\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"anna\"]"
    );
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, &rules).await;
    let registry = larder.registry().to_string();
    let target = format!("{registry}/team/app:v1");

    let (address, to) = (registry.clone(), target.clone());
    let pushing = tokio::task::spawn_blocking(move || {
        let upstream = Registry::holding(std::slice::from_ref(images::named("org/app")));
        let mirror = Mirror::mirroring(&upstream);
        let mut client = start(&mirror);
        client.pull(SOURCE);
        client.login(&address, ANNA).unwrap();
        let first = client.push(SOURCE, &to, Some(ANNA));
        (first, client, mirror, upstream)
    });
    // The small layers are there, the large one is still on its way.
    while larder.metric("larder_requests_total", "endpoint=\"upload\",method=\"PUT\"").await < 1.0 {
        tokio::task::yield_now().await;
    }
    larder.clock.advance(Duration::from_secs(400));
    let (first, mut client, mirror, upstream) = pushing.await.unwrap();
    let pushed = tokio::task::spawn_blocking(move || {
        let told = match (&first, then) {
            (Err(told), Then::GivesUp) => {
                client.push(SOURCE, &target, Some(ANNA)).unwrap();
                told.clone()
            }
            (Ok(_), Then::GoesOn) => String::new(),
            _ => panic!("it should be that it {then:?}: {first:?}"),
        };
        let mut other = start(&mirror);
        other.pull_pushed(&target, None).unwrap();
        drop(upstream);
        told
    });
    let told = pushed.await.unwrap();
    assert!(told.is_empty() || told.contains("nauthorized") || told.contains("authentication required"), "{told}");
    assert!(larder.metric("larder_requests_total", "status=\"401\"").await > 0.0);
}
