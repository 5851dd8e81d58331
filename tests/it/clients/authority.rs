//! The registry over TLS, with the certificate that `larder cert` makes: who was given its authority in the place where that
//! client looks works as without TLS, and who was not is told why not. With accounts and tokens throughout.

use super::buildah::{self, Buildah};
use super::containerd::{self, Containerd};
use super::docker::{self, Docker};
use super::images;
use super::larder::Larder;
use super::podman::{self, Podman};
use super::process::UNTRUSTED;
use super::pushes::{ANNA, BERT, IMPOSTOR, Pusher};
use super::registry::Registry;
use super::skopeo::{self, Skopeo};
use super::{Client, ready};

/// Tokens, because anyone may pull what is public. Accounts anna and bert; anna may push.
const RULES: &str = "htpasswd = \"HOME/htpasswd\"\nanonymous = \"pull\"\n[[registry.repository]]\npattern = \"team/**\"\n\
    pull = [\"anna\", \"bert\"]\npush = [\"anna\"]\nimmutable_tags = [\"golden\"]\n\
    [[registry.repository]]\npattern = \"public/**\"\npush = [\"anna\"]";

const SOURCE: &str = "docker.io/org/app:v1";
const OTHER: &str = "docker.io/library/base:1";

/// What a client does by itself, beyond what all must do.
#[derive(Clone, Copy)]
struct Habits {
    /// It remembers a login; else each command is given one.
    keeps_logins: bool,
    /// It takes from another repository what it knows to be there.
    mounts: bool,
}

const USUAL: Habits = Habits { keeps_logins: true, mounts: true };

#[test]
fn docker_speaks_tls_to_the_registry_once_it_has_the_authority() {
    if ready(&docker::PROGRAMS) {
        over_tls(Docker::using, Docker::distrusting, USUAL);
    }
}

#[test]
fn podman_speaks_tls_to_the_registry_once_it_has_the_authority() {
    if ready(&podman::PROGRAMS) {
        over_tls(Podman::using, Podman::distrusting, USUAL);
    }
}

#[test]
fn skopeo_speaks_tls_to_the_registry_once_it_has_the_authority() {
    if ready(&skopeo::PROGRAMS) {
        over_tls(Skopeo::using, Skopeo::distrusting, USUAL);
    }
}

#[test]
fn buildah_speaks_tls_to_the_registry_once_it_has_the_authority() {
    if ready(&buildah::PROGRAMS) {
        over_tls(Buildah::using, Buildah::distrusting, USUAL);
    }
}

#[test]
fn containerd_speaks_tls_to_the_registry_once_it_has_the_authority() {
    if ready(&containerd::PROGRAMS) {
        over_tls(Containerd::using, Containerd::distrusting, Habits { keeps_logins: false, mounts: false });
    }
}

fn over_tls<C: Client + Pusher>(start: impl Fn(&Larder) -> C, distrusting: impl Fn(&Larder) -> C, habits: Habits) {
    let upstream = Registry::holding(images::all());
    let larder = Larder::hosting_over_tls(&upstream, RULES);
    let registry = larder.registry().to_string();
    let at = |rest: &str| format!("{registry}/{rest}");

    let mut stranger = distrusting(&larder);
    stranger.pull(SOURCE);
    let before = larder.requests("");
    let refused = if habits.keeps_logins {
        stranger.login(&registry, ANNA)
    } else {
        stranger.push(SOURCE, &at("team/app:v1"), Some(ANNA)).map(drop)
    };
    assert!(refused.as_ref().is_err_and(|told| told.contains(UNTRUSTED)), "{refused:?}");
    assert_eq!(larder.requests(""), before, "not a byte of a password is sent to who cannot be trusted");
    drop(stranger);

    let mut client = start(&larder);
    client.pull(SOURCE);
    client.push(SOURCE, &at("team/app:v1"), None).unwrap_err();
    if habits.keeps_logins {
        client.login(&registry, IMPOSTOR).unwrap_err();
    } else {
        client.push(SOURCE, &at("team/app:v1"), Some(IMPOSTOR)).unwrap_err();
    }
    client.login(&registry, ANNA).unwrap();
    client.push(SOURCE, &at("team/app:v1"), Some(ANNA)).unwrap();
    let uploaded = larder.uploaded();
    client.push(SOURCE, &at("team/app:v1"), Some(ANNA)).unwrap();
    assert_eq!(larder.uploaded(), uploaded, "what is there already is not pushed again");
    client.push(SOURCE, &at("public/app:v1"), Some(ANNA)).unwrap();
    let again = larder.uploaded() - uploaded;
    assert!(if habits.mounts { again <= 1 } else { again > 1 }, "all but a config is mounted, if anything is: {again}");
    client.push(SOURCE, &at("team/app:golden"), Some(ANNA)).unwrap();
    client.pull(OTHER);
    let moved = client.push(OTHER, &at("team/app:golden"), Some(ANNA)).unwrap_err();
    // ctr tells the status alone.
    assert!(moved.contains("immutable") || moved.contains("403"), "{moved}");

    let mut other = start(&larder);
    other.pull_pushed(&at("public/app:v1"), None).unwrap();
    other.pull_pushed(&at("team/app:v1"), None).unwrap_err();
    other.login(&registry, BERT).unwrap();
    other.pull_pushed(&at("team/app:golden"), Some(BERT)).unwrap();
    if let Some(printed) = other.run(&at("team/app:golden")) {
        assert_eq!(printed.trim_end(), images::named("org/app").prints);
    }
    other.pull(SOURCE);
    other.push(SOURCE, &at("team/app:v2"), Some(BERT)).unwrap_err();
}
