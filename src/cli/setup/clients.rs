//! Which files each client reads, and what makes it read them again (protocol.md, 3.1 and 6). Touches no file.

use super::plan::{Plan, Planned, Rule, Wish};
use super::snippet;
use crate::cli::client_files::{CONTAINERD_CERTS, CONTAINERS_CERTS, DAEMON_JSON, DOCKER_CERTS, REGISTRIES_CONF_D};

/// No `insecure-registries`: Docker takes the scheme of a mirror's address as it is written, and the list would make it
/// trust any certificate of that host.
pub(super) fn docker(wish: &Wish) -> Plan {
    let mirror = &wish.mirror;
    let mut files = vec![Planned::new(DAEMON_JSON, Rule::DaemonJson, snippet::daemon_json(mirror))];
    if let Some(ca) = &wish.ca {
        // The classic image store looks below the mirror's name, the containerd store below the registry's.
        for folder in [mirror.authority(), "docker.io"] {
            let path = format!("{DOCKER_CERTS}/{folder}/larder-ca.crt");
            files.push(Planned::new(path, Rule::Certificate, ca.as_str()));
        }
    }
    let mut then = vec![
        "sudo systemctl reload docker".to_owned(),
        format!("Does it know?  docker info | grep -A2 Mirrors    (it must list {})", mirror),
        format!("If dockerd has a proxy, its NO_PROXY must contain {}.", mirror.host()),
    ];
    if !mirror.is_https() {
        then.push(
            "docker build in Docker 20.10 to 24 forgets the http:// of a mirror and goes to Docker Hub; docker pull does not."
                .to_owned(),
        );
    }
    let others: Vec<_> = wish.registries.iter().filter(|registry| !registry.is_docker_hub()).cloned().collect();
    if !others.is_empty() {
        let others = Wish { mirror: mirror.clone(), registries: others, ca: wish.ca.clone() };
        files.extend(hosts(DOCKER_CERTS, &others));
        then.push(
            "Registries other than docker.io go through a mirror only where Docker uses the containerd image store \
             (docker info -f '{{ .DriverStatus }}' names io.containerd.snapshotter.v1)."
                .to_owned(),
        );
    }
    Plan { files, then }
}

pub(super) fn containerd(wish: &Wish) -> Plan {
    let then = vec![
        "containerd reads these files at each pull: nothing to restart, if its config.toml says where they are:".to_owned(),
        "  containerd 2:  [plugins.'io.containerd.cri.v1.images'.registry]  config_path = '/etc/containerd/certs.d'".to_owned(),
        "  containerd 1:  [plugins.'io.containerd.grpc.v1.cri'.registry]    config_path = '/etc/containerd/certs.d'".to_owned(),
        "If it does not: add it (and remove registry.mirrors and registry.configs, which exclude it), then sudo systemctl restart containerd"
            .to_owned(),
        "ctr wants to be told:  ctr images pull --hosts-dir /etc/containerd/certs.d docker.io/library/alpine:latest".to_owned(),
        format!("If containerd has a proxy, its NO_PROXY must contain {}.", wish.mirror.host()),
    ];
    Plan { files: hosts(CONTAINERD_CERTS, wish), then }
}

pub(super) fn podman(wish: &Wish) -> Plan {
    // Files of their own: the machine's registries.conf stays as it is, and another registry can be added later.
    let mut files: Vec<Planned> = wish
        .registries
        .iter()
        .map(|registry| {
            let path = format!("{REGISTRIES_CONF_D}/50-larder-{registry}.conf");
            Planned::new(path, Rule::Ours, snippet::registries_conf(&wish.mirror, registry))
        })
        .collect();
    if let Some(ca) = &wish.ca {
        let path = format!("{CONTAINERS_CERTS}/{}/larder-ca.crt", wish.mirror.authority());
        files.push(Planned::new(path, Rule::Certificate, ca.as_str()));
    }
    let then = vec![
        "Podman, Buildah and skopeo read it at their next pull; CRI-O after sudo systemctl reload crio".to_owned(),
        "Does it know?  podman info --format '{{ .Registries }}'".to_owned(),
        format!("If HTTPS_PROXY is set, NO_PROXY must contain {}.", wish.mirror.host()),
    ];
    Plan { files, then }
}

/// A `hosts.toml` for each registry, with the authority's certificate beside it.
fn hosts(below: &str, wish: &Wish) -> Vec<Planned> {
    let mut files = Vec::new();
    for registry in &wish.registries {
        let text = snippet::hosts_toml(&wish.mirror, registry, wish.ca.is_some());
        files.push(Planned::new(format!("{below}/{registry}/hosts.toml"), Rule::Ours, text));
        if let Some(ca) = &wish.ca {
            files.push(Planned::new(format!("{below}/{registry}/larder-ca.pem"), Rule::Certificate, ca.as_str()));
        }
    }
    files
}
