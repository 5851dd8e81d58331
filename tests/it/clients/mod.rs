//! Real clients, a real upstream, and the real server between them.
//!
//! The upstream is Debian's `docker-registry` and the clients are Debian's docker, containerd, podman and skopeo, so
//! these tests need root and those packages. No client is told where the upstream is, and every way to the real
//! Docker Hub ends at a closed port: what arrives, came through the mirror.

mod authority;
mod browser;
mod buildah;
mod containerd;
mod docker;
mod doctor;
mod expiry;
mod front;
mod http;
mod images;
mod larder;
mod layers;
mod layout;
mod machine;
mod outage;
mod podman;
mod process;
mod prometheus;
mod proxy;
mod pushes;
mod registry;
mod relay;
mod scratch;
mod shipped;
mod skopeo;
mod unit;

use std::collections::BTreeSet;
use std::time::Duration;

use images::Image;
use larder::Larder;
use process::{Program, wanted};
use registry::{DOCKER_REGISTRY, Registry};
use scratch::wait_until;

/// What the tests ask of a client, whichever it is.
trait Client {
    fn pull(&mut self, reference: &str);

    /// That what was pulled under `reference` is `image`.
    fn check(&self, image: &Image, reference: &str);

    /// What it prints, if this client runs containers at all.
    fn run(&self, reference: &str) -> Option<String>;

    /// Removes its images as a user does.
    fn forget_images(&mut self);

    /// Deletes its storage behind its back.
    fn wipe(&mut self);
}

#[test]
fn docker_pulls_cold_warm_and_with_the_upstream_gone() {
    if ready(&docker::PROGRAMS) {
        pulls_cold_warm_and_with_the_upstream_gone(docker::Docker::using);
    }
}

#[test]
fn containerd_pulls_cold_warm_and_with_the_upstream_gone() {
    if ready(&containerd::PROGRAMS) {
        pulls_cold_warm_and_with_the_upstream_gone(containerd::Containerd::using);
    }
}

#[test]
fn podman_pulls_cold_warm_and_with_the_upstream_gone() {
    if ready(&podman::PROGRAMS) {
        pulls_cold_warm_and_with_the_upstream_gone(podman::Podman::using);
    }
}

#[test]
fn skopeo_copies_cold_warm_and_with_the_upstream_gone() {
    if ready(&skopeo::PROGRAMS) {
        pulls_cold_warm_and_with_the_upstream_gone(skopeo::Skopeo::using);
    }
}

/// An older client never asks for attestations; a newer one fails without them (protocol.md, rule 5).
#[test]
fn attestations_of_what_containerd_pulled_outlive_the_upstream() {
    if !(ready(&containerd::PROGRAMS) && ready(&skopeo::PROGRAMS)) {
        return;
    }
    let image = images::named("org/attested");
    let mut upstream = Registry::holding(std::slice::from_ref(image));
    let mut larder = Larder::mirroring(&upstream);
    containerd::Containerd::using(&larder).pull(&image.by_tag());

    let pieces: BTreeSet<String> = image.attestation().unwrap().blob_digests().collect();
    wait_until("the mirror completes the index by itself", Duration::from_secs(30), || {
        upstream.reads(&pieces).values().all(|count| *count > 0)
    });
    upstream.stop();
    larder.restart();
    skopeo::Skopeo::using(&larder).copy_all(image);
}

/// One Larder stands for several registries: containerd says which by `?ns=`, Podman by the path.
#[test]
fn another_registry_is_pulled_through_the_same_mirror() {
    if !(ready(&containerd::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let image = images::named("org/multi");
    let upstream = Registry::holding(std::slice::from_ref(image));
    let larder = Larder::mirroring(&upstream);
    let reference = format!("ghcr.io/{}:{}", image.repository, image.tag);
    let mut containerd = containerd::Containerd::using(&larder);
    containerd.pull(&reference);
    containerd.check(image, &reference);
    let before = larder.requests("");
    let mut podman = podman::Podman::using(&larder);
    podman.pull(&reference);
    podman.check(image, &reference);
    assert!(larder.requests("") > before, "podman went past the mirror");
}

#[test]
fn clients_that_were_given_the_authority_pull_over_tls() {
    if !(ready(&docker::PROGRAMS) && ready(&containerd::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let image = images::named("org/multi");
    let upstream = Registry::holding(std::slice::from_ref(image));
    let larder = Larder::mirroring_over_tls(&upstream);
    // Docker checks no certificate of a mirror on loopback; the other two do.
    let (mut docker, mut containerd) = (docker::Docker::using(&larder), containerd::Containerd::using(&larder));
    let mut podman = podman::Podman::using(&larder);
    let clients: [&mut dyn Client; 3] = [&mut docker, &mut containerd, &mut podman];
    for client in clients {
        let before = larder.requests("");
        client.pull(&image.by_tag());
        client.check(image, &image.by_tag());
        assert!(larder.requests("") > before, "a client went past the mirror");
    }
}

#[test]
fn without_the_authority_no_client_trusts_the_mirror() {
    if !(ready(&containerd::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let image = images::named("org/multi");
    let upstream = Registry::holding(std::slice::from_ref(image));
    let larder = Larder::mirroring_over_tls(&upstream);
    let containerd = containerd::Containerd::set_up_by(|root| larder.set_up_without_ca("containerd", root));
    let podman = podman::Podman::set_up_by(|root| larder.set_up_without_ca("podman", root), true);
    // The way to the real Docker Hub is closed, so they have nothing else.
    assert!(containerd.cannot_pull(&image.by_tag()), "containerd took a certificate that nobody vouches for");
    assert!(podman.cannot_pull(&image.by_tag()), "podman took a certificate that nobody vouches for");
    assert_eq!(larder.requests(""), 0);
}

fn ready(programs: &[Program]) -> bool {
    let upstream = [DOCKER_REGISTRY, Program::new("busybox", "busybox-static")];
    wanted(&[programs, &upstream].concat())
}

fn pulls_cold_warm_and_with_the_upstream_gone<C: Client>(start: impl FnOnce(&Larder) -> C) {
    let images = images::all();
    let mut upstream = Registry::holding(images);
    let larder = Larder::mirroring(&upstream);
    let mut client = start(&larder);
    let needed: BTreeSet<String> = images.iter().flat_map(|image| image.local().blob_digests()).collect();

    // Cold, half of them by tag and half by digest.
    for (image, by_tag) in images.iter().zip([true, false].into_iter().cycle()) {
        pull(&mut client, image, by_tag);
    }
    wait_until("every blob is fetched from the upstream", Duration::from_secs(10), || {
        upstream.reads(&needed).values().all(|count| *count > 0)
    });
    let fetched = upstream.reads(&needed);

    // Warm: the tags that are new are asked for, no blob is fetched again.
    client.forget_images();
    pull_all(&mut client, &larder, needed.len());
    assert_eq!(upstream.reads(&needed), fetched, "a blob was fetched twice");
    let readers = upstream.readers();
    assert_eq!(readers.len(), 1, "somebody went past the mirror: {readers:?}");

    // And without the upstream, for a client that has nothing left.
    upstream.stop();
    client.wipe();
    pull_all(&mut client, &larder, needed.len());
}

fn pull_all(client: &mut impl Client, larder: &Larder, blobs: usize) {
    let hits = larder.requests("hit");
    images::all().iter().for_each(|image| pull(client, image, true));
    client.forget_images();
    images::all().iter().for_each(|image| pull(client, image, false));
    let hits = larder.requests("hit") - hits;
    assert!(hits >= u64::try_from(blobs).unwrap(), "only {hits} hits for {blobs} blobs pulled twice");
}

fn pull(client: &mut impl Client, image: &Image, by_tag: bool) {
    let reference = if by_tag { image.by_tag() } else { image.by_digest() };
    client.pull(&reference);
    client.check(image, &reference);
    // A container is the slowest part, and the same image twice in a row proves no more.
    if by_tag && let Some(printed) = client.run(&reference) {
        assert_eq!(printed.trim_end(), image.prints, "{reference}");
    }
}
