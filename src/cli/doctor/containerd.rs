//! containerd as it is found: its version, its configuration with defaults, and the `hosts.toml` of Docker Hub.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tokio::net::UnixStream;

use super::certificates::Chain;
use super::facts::{ConfigFile, Containerd, CriConfig, Passport, ProxyVariables, Puller};
use super::{command, hosts_toml, places};
use crate::cli::client_files::{CONTAINERD_CERTS, CONTAINERD_CONFIG};
use crate::cli::mirror_url::MirrorUrl;

/// Where it listens unless CONTAINERD_ADDRESS says otherwise.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long one of its programs may take to tell something.
const PATIENCE: Duration = Duration::from_secs(10);
/// The CRI plugin's registries in the configuration of containerd 2 and 1.
const REGISTRIES: [&str; 2] = ["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"];

/// The daemon at `address`, if there is one, and the proxies that it uses.
pub(super) async fn find(address: &Path) -> Option<(Containerd, Option<ProxyVariables>)> {
    if !address.exists() {
        return None;
    }
    let daemon = command::find("containerd");
    let version = match &daemon {
        Some(path) => printed(path, &["--version"]).await.unwrap_or_default(),
        None => String::new(),
    };
    let config = match &daemon {
        // With what it imports and what it does not say, which no file tells.
        Some(path) => match printed(path, &["--config", CONTAINERD_CONFIG, "config", "dump"]).await {
            Ok(text) => parse(&text),
            Err(reason) => ConfigFile::Broken(reason),
        },
        None => ConfigFile::Missing,
    };
    let folder = folder_of(&config);
    let hosts = ["docker.io", "_default"].map(|name| hosts_toml::read(&folder.join(name).join("hosts.toml")));
    let client = match &config {
        ConfigFile::Says(config) if !config.is_disabled && command::find("crictl").is_some() => Some(Puller::Crictl),
        _ => command::find("ctr").map(|_| Puller::Ctr),
    };
    let found = Containerd {
        address: address.to_owned(),
        version: version.split_whitespace().nth(2).unwrap_or_default().to_owned(),
        client,
        config,
        folder,
        hosts: hosts.into_iter().find(|hosts| *hosts != ConfigFile::Missing).unwrap_or(ConfigFile::Missing),
        named: Vec::new(),
    };
    Some((found, variables_of_listener(address).await))
}

/// Looks for the authorities that its `hosts.toml` names, of which one may vouch for the mirror.
pub(super) fn look_for_authorities(containerd: &mut Containerd, chain: Option<&Chain>, now: SystemTime) {
    if let ConfigFile::Says(hosts) = &containerd.hosts {
        let named: Vec<PathBuf> = hosts.hosts.iter().flat_map(|host| host.ca.clone()).collect();
        containerd.named = places::named(&named, chain, now);
    }
}

/// The certificates of its own that its `hosts.toml` has it show to the mirror.
pub(super) fn passports(containerd: &Containerd, mirror: &MirrorUrl) -> Vec<Passport> {
    match &containerd.hosts {
        ConfigFile::Says(hosts) => hosts.passports(mirror),
        ConfigFile::Missing | ConfigFile::Broken(_) => Vec::new(),
    }
}

/// Has it pull, and returns its last words.
pub(super) async fn pull(
    containerd: &Containerd,
    proxies: Option<&ProxyVariables>,
    image: &str,
    patience: Duration,
) -> String {
    let Some(puller) = containerd.client else { return String::new() };
    let name = match puller {
        Puller::Crictl => "crictl",
        Puller::Ctr => "ctr",
    };
    let Some(program) = command::find(name) else { return String::new() };
    let mut pull = Command::new(program);
    match puller {
        Puller::Crictl => {
            let endpoint = format!("unix://{}", containerd.address.display());
            pull.args(["--image-endpoint", &endpoint, "--runtime-endpoint", &endpoint, "pull", image]);
        }
        Puller::Ctr => {
            pull.arg("--address").arg(&containerd.address).args(["images", "pull", "--hosts-dir"]);
            pull.arg(&containerd.folder).arg(image);
            // ctr asks itself: it must go the way that the daemon goes.
            for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"] {
                pull.env_remove(name);
            }
            if let Some(ProxyVariables { http, https, not_for }) = proxies {
                pull.env("HTTP_PROXY", http).env("HTTPS_PROXY", https).env("NO_PROXY", not_for);
            }
        }
    }
    match command::run(pull, patience).await {
        Ok(output) => output.last_words(),
        Err(reason) => reason,
    }
}

async fn printed(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut told = Command::new(program);
    told.args(arguments);
    match command::run(told, PATIENCE).await {
        Ok(output) if output.succeeded => Ok(output.out),
        Ok(output) => Err(output.last_words()),
        Err(reason) => Err(reason),
    }
}

/// The first folder that the CRI plugin looks in; the usual one if it looks in none.
fn folder_of(config: &ConfigFile<CriConfig>) -> PathBuf {
    let folders = match config {
        ConfigFile::Says(config) => config.config_path.as_str(),
        ConfigFile::Missing | ConfigFile::Broken(_) => "",
    };
    let first = folders.split(':').find(|folder| !folder.is_empty() && Path::new(folder).exists());
    first.unwrap_or(CONTAINERD_CERTS).into()
}

fn parse(text: &str) -> ConfigFile<CriConfig> {
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return ConfigFile::Broken(toml::de::Error::message(&error).to_owned()),
    };
    let disabled = table.get("disabled_plugins").and_then(toml::Value::as_array).into_iter().flatten();
    let disabled: Vec<&str> = disabled.filter_map(toml::Value::as_str).collect();
    let is_disabled = disabled.iter().any(|name| *name == "cri" || REGISTRIES.contains(name));
    let plugins = table.get("plugins");
    let registry = REGISTRIES.iter().find_map(|name| plugins?.get(name)?.get("registry"));
    let is_filled =
        |key: &str| registry.and_then(|registry| registry.get(key)?.as_table()).is_some_and(|table| !table.is_empty());
    let config_path = registry.and_then(|registry| registry.get("config_path")?.as_str());
    ConfigFile::Says(CriConfig {
        is_disabled,
        config_path: config_path.unwrap_or_default().to_owned(),
        has_old_form: is_filled("mirrors") || is_filled("configs"),
    })
}

/// The environment of the process that listens there. Only root may see it.
async fn variables_of_listener(address: &Path) -> Option<ProxyVariables> {
    let pid = UnixStream::connect(address).await.ok()?.peer_cred().ok()?.pid()?;
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    Some(super::variables::among(environment.split(|byte| *byte == 0).filter_map(|variable| {
        let variable = String::from_utf8_lossy(variable).into_owned();
        let (name, value) = variable.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_of_its_configuration_are_read() {
        for (text, wanted) in [
            (
                "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
                CriConfig { config_path: "/etc/containerd/certs.d".into(), ..CriConfig::default() },
            ),
            (
                "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
                CriConfig { is_disabled: true, ..CriConfig::default() },
            ),
            (
                "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"http://a\"]\n",
                CriConfig { has_old_form: true, ..CriConfig::default() },
            ),
            ("disabled_plugins = [\"cri\"]", CriConfig { is_disabled: true, ..CriConfig::default() }),
        ] {
            assert_eq!(parse(text), ConfigFile::Says(wanted), "{text}");
        }
        assert!(matches!(parse("x = ["), ConfigFile::Broken(_)));
    }
}
