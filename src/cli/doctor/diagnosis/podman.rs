//! Findings about Podman.

use super::{proof, trust};
use crate::cli::client_files::REGISTRIES_CONF;
use crate::cli::doctor::facts::{Engine, Facts, Podman, PodmanInfo, PodmanMirror};
use crate::cli::doctor::finding::{Finding, Mark};
use crate::cli::mirror_url::MirrorUrl;

const ABOUT: &str = "podman";

pub(super) fn findings(podman: &Podman, engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let info = match &podman.info {
        Ok(info) => info,
        Err(reason) => return vec![Finding::fail(ABOUT, "does not run").because(reason.as_str()).then("podman info")],
    };
    let url = &facts.mirror.url;
    let mut findings = vec![Finding::ok(ABOUT, format!("{}, {} storage", info.version, info.storage))];
    let mirror = info.mirrors.iter().find(|mirror| is_ours(url, mirror));
    let is_configured = configured(podman, info, mirror, url);
    if mirror.is_none() && info.mirrors.is_empty() && facts.only.is_none() {
        findings.push(Finding { mark: Mark::Warn, ..is_configured });
        return findings;
    }
    findings.push(is_configured);
    if let Some(mirror) = mirror {
        if !mirror.insecure {
            let place = podman.folder.join("larder-ca.crt");
            findings.extend(trust::finding(ABOUT, &facts.mirror, &podman.by_mirror, &[], &place));
        }
        findings.extend(trust::passport(ABOUT, &facts.mirror, engine, || {
            format!("client.cert and client.key in {}", podman.folder.display())
        }));
        findings.extend(proof::proxy(ABOUT, engine, &facts.mirror, "in this user's environment"));
    }
    findings.extend(proof::probe(ABOUT, engine, &facts.mirror));
    findings
}

/// A location may have a path behind the mirror's name, as Larder's own have for other registries.
fn is_ours(url: &MirrorUrl, mirror: &PodmanMirror) -> bool {
    let authority = mirror.location.split('/').next().unwrap_or_default();
    // The scheme is not in it.
    ["http", "https"].iter().any(|scheme| {
        let named = MirrorUrl::parse(&format!("{scheme}://{authority}"));
        named.is_some_and(|named| (named.host(), named.port()) == (url.host(), url.port()))
    })
}

fn configured(podman: &Podman, info: &PodmanInfo, mirror: Option<&PodmanMirror>, url: &MirrorUrl) -> Finding {
    let setup = format!("larder setup podman --mirror {url} --write");
    let Some(mirror) = mirror else {
        let finding = Finding::fail(ABOUT, format!("is not configured to use {url}"));
        return match info.mirrors.first() {
            Some(other) => finding.because(format!("it uses {}", other.location)),
            None => match &podman.own_conf {
                Some(own) => {
                    let own = own.display();
                    return finding
                        .because(format!("{own} has no mirror for docker.io, and keeps this user's Podman from /etc"))
                        .then(format!("add to it what larder setup podman --mirror {url} prints"));
                }
                None => finding.because("registries.conf has no mirror for docker.io"),
            },
        }
        .then(format!("sudo {setup}"));
    };
    if info.blocked {
        return Finding::fail(ABOUT, "docker.io is blocked")
            .because(format!("blocked = true in {REGISTRIES_CONF} or a file beside it"))
            .then("remove that line");
    }
    if !url.is_https() && !mirror.insecure {
        return Finding::fail(ABOUT, format!("asks {} over HTTPS only", mirror.location))
            .because("the mirror speaks HTTP, and its entry has no insecure = true")
            .then(format!("sudo {setup}"));
    }
    match mirror.pull_from.as_str() {
        "digest-only" => Finding::warn(ABOUT, "asks the mirror only for images by digest")
            .because("pull-from-mirror = \"digest-only\"")
            .then("remove that line: tags are what Docker Hub counts"),
        _ => Finding::ok(ABOUT, format!("is configured to use {}", mirror.location)),
    }
}
