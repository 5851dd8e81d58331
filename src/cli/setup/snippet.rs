//! The texts of `deploy/clients/`, for another mirror and other registries. The one copy of them: what is written here
//! is what the tests give to real clients. Never reads or writes a file.

use crate::config::{BaseUrl, UpstreamName};

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

/// The mirror as clients name it.
#[derive(Debug, Clone)]
pub(super) struct Mirror(BaseUrl);

impl Mirror {
    pub(super) fn new(url: BaseUrl) -> Mirror {
        Mirror(url)
    }

    pub(super) fn url(&self) -> &str {
        self.0.as_str()
    }

    /// `host:port`, which is also what clients call the folder of its certificates.
    pub(super) fn authority(&self) -> &str {
        self.url().split_once("://").map_or("", |(_, authority)| authority)
    }

    pub(super) fn is_https(&self) -> bool {
        self.url().starts_with("https://")
    }

    fn put_into(&self, text: &str) -> String {
        text.replace(MIRROR, self.authority())
    }
}

/// `/etc/docker/daemon.json` where there is none yet.
pub(super) fn daemon_json(mirror: &Mirror) -> String {
    mirror.put_into(snippet!(mirror, "docker/daemon.json"))
}

/// `certs.d/REGISTRY/hosts.toml`. Without `with_ca` the mirror's certificate must be one that this machine trusts.
pub(super) fn hosts_toml(mirror: &Mirror, registry: &UpstreamName, with_ca: bool) -> String {
    let text = if registry.is_docker_hub() {
        snippet!(mirror, "containerd/certs.d/docker.io/hosts.toml").to_owned()
    } else {
        snippet!(mirror, "containerd/certs.d/ghcr.io/hosts.toml").replace(OTHER, &registry.to_string())
    };
    let lines = text.lines().filter(|line| with_ca || !line.starts_with("ca = "));
    mirror.put_into(&lines.flat_map(|line| [line, "\n"]).collect::<String>())
}

/// `registries.conf.d/50-larder-REGISTRY.conf`.
pub(super) fn registries_conf(mirror: &Mirror, registry: &UpstreamName) -> String {
    let text = if registry.is_docker_hub() {
        snippet!(mirror, "containers/registries.conf.d/50-larder-docker.io.conf").to_owned()
    } else {
        let text = snippet!(mirror, "containers/registries.conf.d/50-larder-ghcr.io.conf");
        text.replace(OTHER, &registry.to_string())
    };
    mirror.put_into(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(url: &str) -> Mirror {
        Mirror::new(toml::Value::from(url).try_into().unwrap())
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
