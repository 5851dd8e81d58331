//! Real clients push to the registry, push again, push elsewhere, and others pull what they pushed; with and without
//! accounts.

use super::buildah::{self, Buildah};
use super::containerd::{self, Containerd};
use super::docker::{self, Docker};
use super::images::{self, Image};
use super::larder::Larder;
use super::podman::{self, Podman};
use super::registry::Registry;
use super::skopeo::{self, Skopeo};
use super::{Client, ready};

/// Anyone may do anything below `team/`, and nobody can move a golden tag.
const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"*\"]\ndelete = [\"*\"]\n\
    [[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\nimmutable_tags = [\"v*\"]\nmirror = true";
/// Accounts anna and bert; anna may push.
const ACCOUNTS: &str = "htpasswd = \"HOME/htpasswd\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"anna\"]\n\
    immutable_tags = [\"golden\"]";

/// A name and its password.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    pub(super) user: &'static str,
    pub(super) password: &'static str,
}

pub(super) const ANNA: Login = Login { user: "anna", password: "anna-secret" };
pub(super) const BERT: Login = Login { user: "bert", password: "bert-secret" };
pub(super) const IMPOSTOR: Login = Login { user: "anna", password: "guessed" };

/// What these tests ask of a client besides.
pub(super) trait Pusher {
    fn login(&mut self, registry: &str, login: Login) -> Result<(), String>;

    /// Names what it has as `source` `target`, and pushes that. Gives what it prints.
    fn push(&mut self, source: &str, target: &str, login: Option<Login>) -> Result<String, String>;

    fn pull_pushed(&mut self, reference: &str, login: Option<Login>) -> Result<(), String>;
}

fn image() -> &'static Image {
    images::named("org/app")
}

/// Pulls through the mirror, pushes to the registry.
fn begin(client: &mut (impl Client + Pusher), larder: &Larder, rest: &str) -> String {
    client.pull(&image().by_tag());
    let target = format!("{}/{rest}", larder.registry());
    client.push(&image().by_tag(), &target, None).unwrap();
    target
}

fn assert_runs(client: &mut (impl Client + Pusher), reference: &str) {
    client.pull_pushed(reference, None).unwrap();
    assert_eq!(client.run(reference).unwrap().trim_end(), image().prints);
}

#[test]
fn docker_pushes_and_podman_pulls() {
    if !(ready(&docker::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting(&upstream, OPEN);
    let mut client = Docker::using(&larder);
    let target = begin(&mut client, &larder, "team/app:v1");
    let again = client.push(&image().by_tag(), &target, None).unwrap();
    assert!(again.contains("Layer already exists"), "{again}");
    let elsewhere = format!("{}/team/other:v1", larder.registry());
    let mounted = client.push(&image().by_tag(), &elsewhere, None).unwrap();
    assert!(mounted.contains("Mounted from team/app"), "{mounted}");
    for reference in [&target, &elsewhere] {
        assert_runs(&mut Podman::using(&larder), reference);
    }
    let foreign = format!("{}/org/app:v1", larder.registry());
    let refused = client.push(&image().by_tag(), &foreign, None).unwrap_err();
    assert!(refused.contains("denied") && refused.contains("team/**"), "{refused}");
    // A golden image is pulled by its name alone, through the mirror, as if it came from Docker Hub.
    begin(&mut client, &larder, "golden/app:v1");
    client.wipe();
    client.pull("docker.io/golden/app:v1");
    assert_eq!(client.run("docker.io/golden/app:v1").unwrap().trim_end(), image().prints);
    client.pull("docker.io/library/base:1");
    let moved = format!("{}/golden/app:v1", larder.registry());
    let refused = client.push("docker.io/library/base:1", &moved, None).unwrap_err();
    assert!(refused.contains("tag v1 is immutable"), "{refused}");
}

#[test]
fn podman_pushes_and_docker_pulls() {
    if !(ready(&docker::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting(&upstream, OPEN);
    let mut client = Podman::using(&larder);
    let target = begin(&mut client, &larder, "team/app:v1");
    client.push(&image().by_tag(), &target, None).unwrap();
    assert_runs(&mut Docker::using(&larder), &target);
}

#[test]
fn containerd_pushes_and_pulls_back() {
    if !(ready(&containerd::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting(&upstream, OPEN);
    let mut client = Containerd::using(&larder);
    let target = begin(&mut client, &larder, "team/app:v1");
    client.push(&image().by_tag(), &target, None).unwrap();
    assert_runs(&mut Containerd::using(&larder), &target);
    assert_runs(&mut Podman::using(&larder), &target);
}

#[test]
fn skopeo_copies_to_and_from_lists_and_deletes() {
    if !ready(&skopeo::PROGRAMS) {
        return;
    }
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting(&upstream, OPEN);
    let client = Skopeo::using(&larder);
    let repository = |name: &str| format!("docker://{}/team/{name}", larder.registry());
    // It would compress what came uncompressed, and write another manifest for it.
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
    for image in images::all() {
        let name = image.repository.replace('/', "-");
        let (source, target) = (format!("docker://{}", image.by_tag()), format!("{}:v1", repository(&name)));
        client.skopeo(&[&["copy", "--all"], insecure.as_slice(), &[&source, &target]].concat()).unwrap();
        let copy = format!("{}:v1", repository("copies"));
        client.skopeo(&[&["copy", "--all"], insecure.as_slice(), &[&target, &copy]].concat()).unwrap();
        for there in [&target, &copy] {
            let raw = client.skopeo(&["inspect", "--raw", "--tls-verify=false", there]).unwrap();
            assert_eq!(raw.as_bytes(), image.top.bytes, "{there} is what it was upstream, byte for byte");
        }
    }
    let tags = client.skopeo(&["list-tags", "--tls-verify=false", &repository("org-app")]).unwrap();
    assert!(tags.contains("\"v1\""), "{tags}");
    let app = format!("{}:v1", repository("org-app"));
    client.skopeo(&["delete", "--tls-verify=false", &app]).unwrap();
    client.skopeo(&["inspect", "--raw", "--tls-verify=false", &app]).unwrap_err();
}

#[test]
fn buildah_builds_and_pushes_and_podman_runs_it() {
    if !(ready(&buildah::PROGRAMS) && ready(&podman::PROGRAMS)) {
        return;
    }
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting(&upstream, OPEN);
    let golden = begin(&mut Podman::using(&larder), &larder, "golden/app:v1");
    let target = format!("{}/team/built:v1", larder.registry());
    let mut builder = Buildah::using(&larder);
    builder.build(&golden, "built on gold\n", &target);
    builder.push(&target, &target, None).unwrap();
    let mut client = Podman::using(&larder);
    client.pull_pushed(&target, None).unwrap();
    assert_eq!(client.run(&target).unwrap().trim_end(), "built on gold");
}

#[test]
fn docker_logs_in() {
    if ready(&docker::PROGRAMS) {
        logs_in(Docker::using, true);
    }
}

#[test]
fn podman_logs_in() {
    if ready(&podman::PROGRAMS) {
        logs_in(Podman::using, true);
    }
}

#[test]
fn containerd_shows_a_password() {
    if ready(&containerd::PROGRAMS) {
        logs_in(Containerd::using, false);
    }
}

/// Only the right password is taken, only who may push can, and an immutable tag is nobody's to move.
fn logs_in<C: Client + Pusher>(start: impl Fn(&Larder) -> C, keeps_logins: bool) {
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting(&upstream, ACCOUNTS);
    let (mut client, registry) = (start(&larder), larder.registry().to_string());
    let (source, target) = (image().by_tag(), format!("{registry}/team/app:v1"));
    client.pull(&source);
    client.push(&source, &target, None).unwrap_err();
    if keeps_logins {
        client.login(&registry, IMPOSTOR).unwrap_err();
    } else {
        client.push(&source, &target, Some(IMPOSTOR)).unwrap_err();
    }
    client.login(&registry, BERT).unwrap();
    client.push(&source, &target, Some(BERT)).unwrap_err();
    client.login(&registry, ANNA).unwrap();
    client.push(&source, &target, Some(ANNA)).unwrap();
    let golden = format!("{registry}/team/app:golden");
    client.push(&source, &golden, Some(ANNA)).unwrap();
    client.push(&source, &golden, Some(ANNA)).unwrap();
    let other = "docker.io/library/base:1";
    client.pull(other);
    client.push(other, &golden, Some(ANNA)).unwrap_err();

    let mut other = start(&larder);
    other.pull_pushed(&target, None).unwrap_err();
    other.login(&registry, BERT).unwrap();
    other.pull_pushed(&golden, Some(BERT)).unwrap();
    assert_eq!(other.run(&golden).unwrap().trim_end(), image().prints);
}
