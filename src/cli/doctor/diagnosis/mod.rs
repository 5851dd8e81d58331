//! From facts to findings: what is wrong on a machine, and what to do. Pure: looks at nothing but the facts.

mod containerd;
mod docker;
mod mirror;
mod podman;
mod proof;
mod trust;

use crate::cli::doctor::facts::{Facts, Particulars, Probe, Reach};
use crate::cli::doctor::finding::{Finding, Mark};

/// All findings: the mirror's first, then each engine's, then what is not proven at all.
pub(super) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = mirror::findings(&facts.mirror);
    for engine in &facts.engines {
        let own = match &engine.particulars {
            Particulars::Docker(docker) => docker::findings(docker, engine, facts),
            Particulars::Containerd(containerd) => containerd::findings(containerd, engine, facts),
            Particulars::Podman(podman) => podman::findings(podman, engine, facts),
        };
        findings.extend(own);
    }
    let is_proven = facts.engines.iter().any(|engine| matches!(engine.probe, Probe::Arrived { .. }));
    let is_failed = findings.iter().any(|finding| finding.mark == Mark::Fail);
    if facts.engines.is_empty() {
        let wanted = facts.only.map_or("docker, containerd or podman", |only| only.as_str());
        findings.push(
            Finding::fail("machine", format!("there is no {wanted} here"))
                .then("run this on the machine that pulls, as a user who may use its engine"),
        );
    } else if !is_proven && !is_failed && facts.mirror.reach == Reach::Larder {
        findings.push(Finding::fail("machine", "no engine of this machine uses the mirror").then(format!(
            "sudo larder setup {} --mirror {} --write",
            engine_to_set_up(facts),
            facts.mirror.url
        )));
    }
    findings
}

fn engine_to_set_up(facts: &Facts) -> &'static str {
    facts.engines.first().map_or("docker", |engine| engine.kind().as_str())
}

#[cfg(test)]
mod tests;
