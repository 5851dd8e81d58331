//! Findings about Docker.

use std::path::{Path, PathBuf};

use super::{proof, trust};
use crate::cli::doctor::facts::{ConfigFile, Daemon, Docker, Engine, Facts, Hosts, NoDaemon, Probe};
use crate::cli::doctor::finding::{Finding, Mark};
use crate::cli::doctor::no_proxy::is_loopback;

const ABOUT: &str = "docker";

pub(super) fn findings(docker: &Docker, engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let socket = docker.socket.display();
    let daemon = match &docker.daemon {
        Ok(daemon) => daemon,
        Err(no_daemon) => {
            let finding = Finding::fail(ABOUT, format!("cannot be asked at {socket}"));
            return vec![match no_daemon {
                NoDaemon::NotRunning => finding.because("no daemon listens there").then(systemctl(docker, "start")),
                NoDaemon::NotAllowed => finding.because("this user may not").then("run this as root"),
                NoDaemon::Odd(reason) => finding.because(reason.as_str()),
            }];
        }
    };
    let whose = if docker.files.is_rootless { ", rootless" } else { "" };
    let store = if daemon.containerd_store { "containerd image store" } else { "classic image store" };
    let mut findings = vec![Finding::ok(ABOUT, format!("{}, {store}{whose}, at {socket}", daemon.version))];
    let is_configured = configured(docker, daemon, facts);
    let uses_it = is_configured.mark != Mark::Fail;
    // Who was not asked for and has no mirror at all may be meant to have none.
    let is_unused = !uses_it && facts.only.is_none() && !names_any_mirror(docker, daemon) && !was_proven(engine);
    if is_unused {
        findings.push(Finding { mark: Mark::Warn, ..is_configured });
        return findings;
    }
    findings.push(is_configured);
    findings.extend(file_is_broken(docker));
    if uses_it {
        findings.extend(shadowed(docker, daemon, facts));
        findings.extend(trusted(docker, daemon, facts));
        findings.extend(trust::passport(ABOUT, &facts.mirror, engine, || {
            let folder = if daemon.containerd_store { "docker.io" } else { facts.mirror.url.authority() };
            format!("client.cert and client.key in {}", docker.files.certs.join(folder).display())
        }));
        let place = if docker.files.is_rootless {
            "(docker info shows it; systemctl --user edit docker, then restart)"
        } else {
            "(docker info shows it; systemctl edit docker, then restart)"
        };
        findings.extend(proof::proxy(ABOUT, engine, &facts.mirror, place));
    }
    findings.extend(proof::probe(ABOUT, engine, &facts.mirror));
    findings
}

/// What is typed to have it started, or read its file again. A rootless daemon is only restarted: its unit's process is another.
fn systemctl(docker: &Docker, verb: &str) -> String {
    match (docker.files.is_rootless, verb) {
        (false, verb) => format!("sudo systemctl {verb} docker"),
        (true, "reload") => "systemctl --user restart docker".to_owned(),
        (true, verb) => format!("systemctl --user {verb} docker"),
    }
}

fn was_proven(engine: &Engine) -> bool {
    matches!(engine.probe, Probe::Arrived { .. })
}

fn names_any_mirror(docker: &Docker, daemon: &Daemon) -> bool {
    let written = matches!(&docker.daemon_json, ConfigFile::Says(mirrors) if !mirrors.is_empty());
    written
        || !daemon.mirrors.is_empty()
        || matches!(docker.daemon_json, ConfigFile::Broken(_))
        || hosts(docker).is_some()
}

fn hosts(docker: &Docker) -> Option<&Hosts> {
    match &docker.hub_hosts {
        ConfigFile::Says(hosts) if !hosts.hosts.is_empty() => Some(hosts),
        _ => None,
    }
}

/// Whether the running daemon knows the mirror.
fn configured(docker: &Docker, daemon: &Daemon, facts: &Facts) -> Finding {
    let url = &facts.mirror.url;
    let (file, reload) = (docker.files.daemon_json.display(), systemctl(docker, "reload"));
    let setup = if docker.files.is_rootless {
        format!("put \"registry-mirrors\": [\"{url}\"] into {file}, then {reload}")
    } else {
        format!("sudo larder setup docker --mirror {url} --write, then {reload}")
    };
    let place = daemon.mirrors.iter().position(|mirror| url.is_named_by(mirror));
    let written: &[String] = match &docker.daemon_json {
        ConfigFile::Says(mirrors) => mirrors,
        ConfigFile::Missing | ConfigFile::Broken(_) => &[],
    };
    let is_written = written.iter().any(|mirror| url.is_named_by(mirror));
    let by_hosts = hosts(docker).filter(|_| daemon.containerd_store);
    if let Some(hosts) = by_hosts.filter(|hosts| hosts.hosts.iter().any(|host| url.is_named_by(&host.url))) {
        return Finding::ok(ABOUT, format!("is configured to use the mirror ({})", hosts.path.display()));
    }
    match place {
        Some(0) => Finding::ok(ABOUT, format!("is configured to use {url}")),
        Some(_) => Finding::warn(ABOUT, format!("asks {} before the mirror", daemon.mirrors[0]))
            .because("registry-mirrors are asked in their order")
            .then(format!("put {url} first in {file}, then {reload}")),
        None if is_written => Finding::fail(ABOUT, "the running daemon does not know the mirror")
            .because(format!("{file} names it, and was not read since"))
            .then(reload),
        None => {
            let finding = Finding::fail(ABOUT, format!("is not configured to use {url}"));
            match daemon.mirrors.first() {
                Some(other) => finding.because(format!("it uses {other}")),
                None => finding.because("it has no registry-mirrors, and goes to Docker Hub"),
            }
            .then(setup)
        }
    }
}

fn file_is_broken(docker: &Docker) -> Option<Finding> {
    let broken = |path: &Path, reason: &str| {
        Finding::fail(ABOUT, format!("{} cannot be used", path.display())).because(reason).then("correct the file")
    };
    match (&docker.daemon_json, &docker.hub_hosts) {
        (ConfigFile::Broken(reason), _) => Some(broken(&docker.files.daemon_json, reason)),
        (_, ConfigFile::Broken(reason)) => Some(broken(&hub_folder(docker).join("hosts.toml"), reason)),
        _ => None,
    }
}

fn hub_folder(docker: &Docker) -> PathBuf {
    docker.files.certs.join("docker.io")
}

/// Where a `hosts.toml` decides, `registry-mirrors` does not; and the classic store reads none.
fn shadowed(docker: &Docker, daemon: &Daemon, facts: &Facts) -> Option<Finding> {
    let hosts = hosts(docker)?;
    let path = hosts.path.display();
    let ours = hosts.hosts.iter().find(|host| facts.mirror.url.is_named_by(&host.url));
    match (daemon.containerd_store, ours) {
        (true, None) => Some(
            Finding::fail(ABOUT, format!("{path} leads past the mirror"))
                .because("with the containerd image store, registry-mirrors are ignored for a registry whose hosts.toml names hosts")
                .then(format!("remove it, or name the mirror there: [host.\"{}\"]", facts.mirror.url)),
        ),
        (true, Some(host)) if !host.serves_pulls => Some(
            Finding::fail(ABOUT, format!("{path} does not let the mirror serve pulls"))
                .because("its capabilities lack \"pull\" or \"resolve\"")
                .then("capabilities = [\"pull\", \"resolve\"]"),
        ),
        (false, _) => Some(
            Finding::warn(ABOUT, format!("{path} is ignored"))
                .because("only the containerd image store reads it; registry-mirrors are what counts here"),
        ),
        (true, Some(_)) => None,
    }
}

fn trusted(docker: &Docker, daemon: &Daemon, facts: &Facts) -> Option<Finding> {
    let mirror = &facts.mirror;
    if mirror.certificate.is_some() && is_loopback(mirror.url.host()) {
        return Some(Finding::ok(ABOUT, "checks no certificate of a mirror on loopback"));
    }
    // The containerd store looks below the registry's name, the classic one below the mirror's (protocol.md, 6).
    let own = docker.files.certs.join(mirror.url.authority()).join("larder-ca.crt");
    if daemon.containerd_store {
        let place = hub_folder(docker).join("larder-ca.crt");
        trust::finding(ABOUT, mirror, &docker.by_registry, &docker.by_mirror, &place)
    } else {
        trust::finding(ABOUT, mirror, &docker.by_mirror, &docker.by_registry, &own)
    }
}
