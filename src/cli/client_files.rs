//! Where the clients of a machine have their configuration. The one list of these places; paths only.

/// Docker's daemon.
pub(super) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// Docker's certificates, and with the containerd image store the `hosts.toml` of each registry.
pub(super) const DOCKER_CERTS: &str = "/etc/docker/certs.d";
/// The `hosts.toml` of each registry, for containerd.
pub(super) const CONTAINERD_CERTS: &str = "/etc/containerd/certs.d";
/// containerd itself.
pub(super) const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
/// Podman, Buildah, skopeo and CRI-O.
pub(super) const REGISTRIES_CONF: &str = "/etc/containers/registries.conf";
/// Drop-ins to that.
pub(super) const REGISTRIES_CONF_D: &str = "/etc/containers/registries.conf.d";
/// Their certificates.
pub(super) const CONTAINERS_CERTS: &str = "/etc/containers/certs.d";
