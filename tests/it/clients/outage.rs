//! Real clients while upstream is gone, silent, or stalled: what is cached is pulled, and how long that took is printed.

#![allow(clippy::print_stdout, reason = "what was measured is told, and never asserted")]

use std::thread;
use std::time::Instant;

use super::images::{self, Image};
use super::larder::Larder;
use super::registry::Registry;
use super::relay::{Relay, Way};
use super::{Client, containerd, docker, http, podman, ready};

#[test]
fn docker_pulls_what_is_cached_whatever_becomes_of_upstream() {
    if ready(&docker::PROGRAMS) {
        pulls_whatever_becomes_of_upstream("docker", docker::Docker::using);
    }
}

#[test]
fn containerd_pulls_what_is_cached_whatever_becomes_of_upstream() {
    if ready(&containerd::PROGRAMS) {
        pulls_whatever_becomes_of_upstream("ctr", containerd::Containerd::using);
    }
}

#[test]
fn podman_pulls_what_is_cached_whatever_becomes_of_upstream() {
    if ready(&podman::PROGRAMS) {
        pulls_whatever_becomes_of_upstream("podman", podman::Podman::using);
    }
}

/// Small ones, of two shapes; `org/app` stays uncached, for the line to stall under.
fn cached() -> [&'static Image; 2] {
    [images::named("library/base"), images::named("org/multi")]
}

fn pulls_whatever_becomes_of_upstream<C: Client>(name: &str, start: impl FnOnce(&Larder) -> C) {
    let upstream = Registry::holding(images::all());
    let relay = Relay::to(upstream.address());
    // Every pull asks, unless it is known that nobody will answer.
    let larder = Larder::mirroring_at(&relay.url(), "tag_ttl = \"1ms\"\nnegative_ttl = \"1ms\"");
    let mut client = start(&larder);
    for image in cached() {
        client.pull(&image.by_tag());
    }
    for way in [Way::BlackHole, Way::Refused, Way::Stalls] {
        relay.set(way);
        if way == Way::Stalls {
            stall_a_fill(&larder);
        }
        let stale = larder.requests("stale");
        // Twice: who meets the failure first, and who comes when it is known.
        for which in ["first", "again"] {
            client.forget_images();
            for image in cached() {
                let began = Instant::now();
                client.pull(&image.by_tag());
                let took = began.elapsed();
                println!("{name}, {way:?}, {which}: {} in {:.2} s", image.by_tag(), took.as_secs_f64());
                client.check(image, &image.by_tag());
            }
        }
        // A line that stalls under a large blob lets the small questions through.
        assert!(way == Way::Stalls || larder.requests("stale") > stale, "{way:?}: nobody noticed");
        relay.set(Way::Open);
    }
}

/// Somebody asks for a layer that is not here, and it stops half-way.
fn stall_a_fill(larder: &Larder) {
    let app = images::named("org/app");
    let ballast = app.local().blobs.iter().max_by_key(|blob| blob.bytes.len()).unwrap();
    let (mirror, path) = (larder.mirror(), format!("/v2/{}/blobs/{}", app.repository, ballast.digest));
    // Refused for as long as upstream is known to have been gone; ends with the server, or when the way is open again.
    thread::spawn(move || while http::get(mirror, &path).is_ok_and(|answer| answer.status != 200) {});
    larder.until_fills(1);
}
