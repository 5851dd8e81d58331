//! Findings about containerd.

use std::path::Path;

use super::{proof, trust};
use crate::cli::client_files::CONTAINERD_CONFIG;
use crate::cli::doctor::facts::{ConfigFile, Containerd, Engine, Facts, Host, Hosts, Puller};
use crate::cli::doctor::finding::{Finding, Mark};

const ABOUT: &str = "containerd";

pub(super) fn findings(containerd: &Containerd, engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let address = containerd.address.display();
    let mut findings = vec![Finding::ok(ABOUT, format!("{}, at {address}", containerd.version))];
    let (is_configured, host) = configured(containerd, facts);
    let uses_nothing = containerd.hosts == ConfigFile::Missing && facts.only.is_none();
    if uses_nothing {
        // On most machines it only serves Docker, which does not read these files of it.
        findings.push(Finding { mark: Mark::Warn, ..is_configured });
        return findings;
    }
    findings.push(is_configured);
    if let Some(host) = host {
        findings.extend(read_by_cri(containerd));
        if !host.skip_verify {
            let place = containerd.folder.join("docker.io/larder-ca.pem");
            findings.extend(trust::finding(ABOUT, &facts.mirror, &containerd.named, &[], &place));
        }
        findings.extend(trust::passport(ABOUT, &facts.mirror, engine, || {
            let path = containerd.folder.join("docker.io/hosts.toml");
            format!("client = [[\"/PATH/client.cert\", \"/PATH/client.key\"]] below its host in {}", path.display())
        }));
        let place = "in its unit (systemctl edit containerd, then restart)";
        findings.extend(proof::proxy(ABOUT, engine, &facts.mirror, place));
    }
    let mut proof = proof::probe(ABOUT, engine, &facts.mirror);
    if let Some(proof) = &mut proof
        && proof.mark == Mark::Ok
        && containerd.client == Some(Puller::Ctr)
    {
        proof.why = format!("with ctr and the files in {}", containerd.folder.display());
    }
    findings.extend(proof);
    findings
}

fn configured<'a>(containerd: &'a Containerd, facts: &Facts) -> (Finding, Option<&'a Host>) {
    let url = &facts.mirror.url;
    let setup = format!("sudo larder setup containerd --mirror {url} --write");
    let finding = match &containerd.hosts {
        ConfigFile::Missing => Finding::fail(ABOUT, "has no mirror for docker.io")
            .because(format!("there is no docker.io/hosts.toml in {}", containerd.folder.display())),
        ConfigFile::Broken(reason) => {
            Finding::fail(ABOUT, "its hosts.toml for docker.io cannot be read").because(reason.as_str())
        }
        ConfigFile::Says(Hosts { path, hosts }) => {
            let path = path.display();
            match hosts.iter().find(|host| url.is_named_by(&host.url)) {
                Some(host) if !host.serves_pulls => {
                    let finding = Finding::fail(ABOUT, format!("{path} does not let the mirror serve pulls"))
                        .because("its capabilities lack \"pull\" or \"resolve\"")
                        .then("capabilities = [\"pull\", \"resolve\"]");
                    return (finding, Some(host));
                }
                Some(host) => return (Finding::ok(ABOUT, format!("{path} names the mirror")), Some(host)),
                None => {
                    let others = hosts.first().map_or("nobody", |host| host.url.as_str());
                    Finding::fail(ABOUT, format!("is not configured to use {url}"))
                        .because(format!("{path} names {others}"))
                }
            }
        }
    };
    (finding.then(setup), None)
}

/// Kubernetes pulls by way of the CRI plugin, which reads these files only if it is told where they are.
fn read_by_cri(containerd: &Containerd) -> Option<Finding> {
    let folder = &containerd.folder;
    let is_folder = |path: &str| Path::new(path.trim_end_matches('/')) == folder;
    match &containerd.config {
        ConfigFile::Missing => None,
        ConfigFile::Broken(reason) => {
            Some(Finding::warn(ABOUT, format!("{CONTAINERD_CONFIG} cannot be read")).because(reason.as_str()))
        }
        ConfigFile::Says(config) if config.is_disabled => None,
        ConfigFile::Says(config) if config.has_old_form => Some(
            Finding::fail(ABOUT, "the CRI plugin (Kubernetes) goes by registry.mirrors and registry.configs")
                .because("they exclude config_path, and with it hosts.toml")
                .then(format!(
                    "remove them from {CONTAINERD_CONFIG}, set config_path = \"{}\", restart containerd",
                    folder.display()
                )),
        ),
        ConfigFile::Says(config) if !config.config_path.split(':').any(is_folder) => Some(
            Finding::warn(ABOUT, "the CRI plugin (Kubernetes) ignores these files")
                .because(format!("its config_path is \"{}\"", config.config_path))
                .then(format!(
                    "config_path = \"{}\" in {CONTAINERD_CONFIG}, then sudo systemctl restart containerd",
                    folder.display()
                )),
        ),
        ConfigFile::Says(_) => None,
    }
}
