//! The texts of `deploy/clients/`, for another mirror and other registries. The one copy of them: what is written here
//! is what the tests give to real clients. Never reads or writes a file.

use crate::cli::mirror_url::MirrorUrl;
use crate::config::UpstreamName;

/// What the texts call the mirror, and a registry that is not Docker Hub.
const MIRROR: &str = "mirror.lan:5000";
const OTHER: &str = "ghcr.io";

/// How a file begins that is ours to write again.
pub(super) const MARK: &str = "# Written by \"larder setup\"";

/// A file of `deploy/clients/` for either scheme.
macro_rules! snippet {
    ($mirror:expr, $path:literal) => {
        if $mirror.is_https() {
            include_str!(concat!("../../../deploy/clients/https/", $path))
        } else {
            include_str!(concat!("../../../deploy/clients/http/", $path))
        }
    };
}

/// A text of the examples, for this mirror.
fn put_into(text: &str, mirror: &MirrorUrl) -> String {
    text.replace(MIRROR, mirror.authority())
}

/// `/etc/docker/daemon.json` where there is none yet.
pub(super) fn daemon_json(mirror: &MirrorUrl) -> String {
    put_into(snippet!(mirror, "docker/daemon.json"), mirror)
}

/// `certs.d/REGISTRY/hosts.toml`. Without `with_ca` the mirror's certificate must be one that this machine trusts.
pub(super) fn hosts_toml(mirror: &MirrorUrl, registry: &UpstreamName, with_ca: bool) -> String {
    let text = if registry.is_docker_hub() {
        snippet!(mirror, "containerd/certs.d/docker.io/hosts.toml").to_owned()
    } else {
        snippet!(mirror, "containerd/certs.d/ghcr.io/hosts.toml").replace(OTHER, &registry.to_string())
    };
    let lines = text.lines().filter(|line| with_ca || !line.starts_with("ca = "));
    put_into(&lines.flat_map(|line| [line, "\n"]).collect::<String>(), mirror)
}

/// `registries.conf.d/50-larder-REGISTRY.conf`.
pub(super) fn registries_conf(mirror: &MirrorUrl, registry: &UpstreamName) -> String {
    let text = if registry.is_docker_hub() {
        snippet!(mirror, "containers/registries.conf.d/50-larder-docker.io.conf").to_owned()
    } else {
        let text = snippet!(mirror, "containers/registries.conf.d/50-larder-ghcr.io.conf");
        text.replace(OTHER, &registry.to_string())
    };
    put_into(&text, mirror)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(url: &str) -> MirrorUrl {
        MirrorUrl::parse(url).unwrap()
    }

    fn registry(name: &str) -> UpstreamName {
        toml::Value::from(name).try_into().unwrap()
    }

    /// A file of `deploy/clients/`, which is also what people copy.
    fn shipped(path: &str) -> String {
        std::fs::read_to_string(format!("{}/deploy/clients/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn for_the_mirror_of_the_examples_it_writes_the_examples() {
        let names = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"];
        for scheme in ["http", "https"] {
            let mirror = mirror(&format!("{scheme}://mirror.lan:5000"));
            assert_eq!(daemon_json(&mirror), shipped(&format!("{scheme}/docker/daemon.json")));
            for (name, registry) in names.iter().zip(&names.map(registry)) {
                let hosts = shipped(&format!("{scheme}/containerd/certs.d/{name}/hosts.toml"));
                assert_eq!(hosts_toml(&mirror, registry, true), hosts);
                let conf = shipped(&format!("{scheme}/containers/registries.conf.d/50-larder-{name}.conf"));
                assert_eq!(registries_conf(&mirror, registry), conf);
            }
        }
    }

    #[test]
    fn another_mirror_and_another_registry_take_the_places_of_the_examples() {
        let mirror = mirror("https://[fd00::1]:8443");
        let hosts = hosts_toml(&mirror, &registry("registry.example.com:5000"), false);
        let hosts: toml::Table = hosts.parse().unwrap();
        assert_eq!(hosts["server"].as_str(), Some("https://registry.example.com:5000"));
        let host = &hosts["host"]["https://[fd00::1]:8443"];
        assert_eq!((host["capabilities"].as_array().unwrap().len(), host.get("ca")), (2, None));
        for (name, location) in
            [("registry.example.com:5000", "[fd00::1]:8443/registry.example.com:5000"), ("docker.io", "[fd00::1]:8443")]
        {
            let conf: toml::Table = registries_conf(&mirror, &registry(name)).parse().unwrap();
            assert_eq!(conf["registry"][0]["prefix"].as_str(), Some(name));
            let mirror = &conf["registry"][0]["mirror"][0];
            assert_eq!((mirror["location"].as_str(), mirror.get("insecure")), (Some(location), None));
        }
    }
}
