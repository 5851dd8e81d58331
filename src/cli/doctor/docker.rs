//! A Docker daemon as it is found: what it says on its socket, and what stands in its files. Judges nothing.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::net::UnixStream;

use super::certificates::Chain;
use super::conversation::{NoReply, Question, Reply, ask};
use super::facts::{ConfigFile, Daemon, Docker, DockerFiles, Hosts, NoDaemon, Passport, ProxyVariables};
use super::{hosts_toml, places};
use crate::cli::client_files::{DAEMON_JSON, DOCKER_CERTS};
use crate::cli::daemon_json;
use crate::cli::mirror_url::MirrorUrl;

/// Where it listens unless it is rootless, or DOCKER_HOST says otherwise.
pub(super) const SOCKET: &str = "/var/run/docker.sock";
/// How long it may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the daemon calls its image store when containerd keeps the images.
const CONTAINERD_STORE: &str = "io.containerd.snapshotter.v1";

/// What a daemon says of itself that runs as a user.
const ROOTLESS: &str = "name=rootless";

/// What of `GET /info` concerns us.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    server_version: String,
    driver_status: Option<Vec<(String, String)>>,
    registry_config: Option<RegistryConfig>,
    security_options: Option<Vec<String>>,
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RegistryConfig {
    mirrors: Option<Vec<String>>,
}

impl DockerFiles {
    /// Those of the machine's daemon.
    pub(super) fn of_the_machine() -> DockerFiles {
        DockerFiles { daemon_json: DAEMON_JSON.into(), certs: DOCKER_CERTS.into(), is_rootless: false }
    }

    /// Those of a daemon of the user whose folder of configurations this is.
    pub(super) fn of_a_user(configs: &Path) -> DockerFiles {
        let docker = configs.join("docker");
        DockerFiles { daemon_json: docker.join("daemon.json"), certs: docker.join("certs.d"), is_rootless: true }
    }
}

/// The daemon at `socket`, if there is one, and the proxies that it uses. `configs` is this user's folder of
/// configurations; `is_users`: the socket is in this user's own place.
pub(super) async fn find(
    socket: &Path,
    is_users: bool,
    configs: Option<&Path>,
) -> Option<(Docker, Option<ProxyVariables>)> {
    let asked = talk(socket, Question::Get("/info"), PATIENCE).await;
    let (daemon, proxies) = match asked {
        // No socket and no configuration: there is no Docker on this machine.
        Err(NoDaemon::NotRunning) if !socket.exists() && !Path::new(DAEMON_JSON).exists() => return None,
        Err(no_daemon) => (Err(no_daemon), None),
        Ok(reply) => match understood(&reply) {
            Ok((daemon, proxies)) => (Ok(daemon), Some(proxies)),
            Err(reason) => (Err(NoDaemon::Odd(reason)), None),
        },
    };
    let is_rootless = daemon.as_ref().map_or(is_users, |daemon: &Daemon| daemon.is_rootless);
    let files = match configs {
        Some(configs) if is_rootless => DockerFiles::of_a_user(configs),
        _ => DockerFiles::of_the_machine(),
    };
    let docker = Docker {
        socket: socket.to_owned(),
        daemon,
        daemon_json: read_daemon_json(&files.daemon_json),
        hub_hosts: hosts_toml::read(&files.certs.join("docker.io/hosts.toml")),
        files,
        by_mirror: Vec::new(),
        by_registry: Vec::new(),
    };
    Some((docker, proxies))
}

/// Looks for the authorities that it may know, of which one may vouch for the mirror.
pub(super) fn look_for_authorities(docker: &mut Docker, mirror: &MirrorUrl, chain: Option<&Chain>, now: SystemTime) {
    let folder = docker.files.certs.clone();
    docker.by_mirror = places::authorities(&folder.join(mirror.authority()), chain, now);
    docker.by_registry = places::authorities(&folder.join("docker.io"), chain, now);
    if let ConfigFile::Says(Hosts { hosts, .. }) = &docker.hub_hosts {
        let named: Vec<PathBuf> = hosts.iter().flat_map(|host| host.ca.clone()).collect();
        docker.by_registry.extend(places::named(&named, chain, now));
    }
}

/// The certificates of its own that it has for the mirror: where it looks for authorities, too.
pub(super) fn passports(docker: &Docker, mirror: &MirrorUrl) -> Vec<Passport> {
    let by_registry = docker.daemon.as_ref().is_ok_and(|daemon| daemon.containerd_store);
    let mut own =
        places::passports(&docker.files.certs.join(if by_registry { "docker.io" } else { mirror.authority() }));
    if let ConfigFile::Says(hosts) = &docker.hub_hosts
        && by_registry
    {
        own.extend(hosts.passports(mirror));
    }
    own
}

/// Has it pull, and returns its last words. Who drops this stops the pull.
pub(super) async fn pull(socket: &Path, image: &str, patience: Duration) -> String {
    let path = format!("/images/create?fromImage={image}&tag=latest");
    match talk(socket, Question::Post(&path), patience).await {
        Ok(reply) => last_words(&reply.body),
        Err(NoDaemon::Odd(reason)) => reason,
        Err(other) => format!("{other:?}"),
    }
}

/// The message of a refusal, or of the last line of what was said while it pulled.
fn last_words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    let said = ["error", "message", "status"].iter().find_map(|key| value[key].as_str());
    said.unwrap_or(last).to_owned()
}

fn understood(reply: &Reply) -> Result<(Daemon, ProxyVariables), String> {
    if reply.status != 200 {
        return Err(format!("it answered {} to /info: {}", reply.status, last_words(&reply.body)));
    }
    let info: Info = serde_json::from_slice(&reply.body).map_err(|error| format!("/info: {error}"))?;
    let driver_type = info.driver_status.iter().flatten().find(|(name, _)| name == "driver-type");
    let daemon = Daemon {
        version: info.server_version,
        containerd_store: driver_type.is_some_and(|(_, value)| value == CONTAINERD_STORE),
        mirrors: info.registry_config.and_then(|config| config.mirrors).unwrap_or_default(),
        is_rootless: info.security_options.iter().flatten().any(|option| option == ROOTLESS),
    };
    Ok((daemon, ProxyVariables { http: info.http_proxy, https: info.https_proxy, not_for: info.no_proxy }))
}

async fn talk(socket: &Path, question: Question<'_>, patience: Duration) -> Result<Reply, NoDaemon> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => NoDaemon::NotRunning,
        ErrorKind::PermissionDenied => NoDaemon::NotAllowed,
        _ => NoDaemon::Odd(error.to_string()),
    })?;
    ask(stream, question, "docker", patience).await.map_err(|error| match error {
        NoReply::Silent => NoDaemon::Odd("it does not answer in time".into()),
        NoReply::Broken(reason) => NoDaemon::Odd(reason),
    })
}

fn read_daemon_json(path: &Path) -> ConfigFile<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => match daemon_json::mirrors(&text) {
            Ok(mirrors) => ConfigFile::Says(mirrors),
            Err(error) => ConfigFile::Broken(error.to_string()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => ConfigFile::Missing,
        Err(error) => ConfigFile::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, date: None, body: body.to_owned().into() }
    }

    #[test]
    fn the_image_store_and_the_mirrors_are_read_from_info() {
        let classic = r#"{"ServerVersion": "28.2.2", "Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]],
            "RegistryConfig": {"Mirrors": ["http://mirror.lan:5000/"]}, "HttpProxy": "http://proxy:3128", "NoProxy": "lan"}"#;
        let (daemon, proxies) = understood(&reply(200, classic)).unwrap();
        assert_eq!((daemon.version.as_str(), daemon.containerd_store), ("28.2.2", false));
        assert_eq!(daemon.mirrors, ["http://mirror.lan:5000/"]);
        assert_eq!(
            (proxies.http.as_str(), proxies.https.as_str(), proxies.not_for.as_str()),
            ("http://proxy:3128", "", "lan")
        );
        assert!(!daemon.is_rootless);
        let rootless = r#"{"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}"#;
        assert!(understood(&reply(200, rootless)).unwrap().0.is_rootless);
        let store = r#"{"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]], "RegistryConfig": {"Mirrors": null}}"#;
        let (daemon, _) = understood(&reply(200, store)).unwrap();
        assert!(daemon.containerd_store && daemon.mirrors.is_empty());
        assert!(understood(&reply(200, "no")).is_err() && understood(&reply(500, r#"{"message": "x"}"#)).is_err());
    }

    #[test]
    fn a_failed_pull_ends_in_the_daemons_own_words() {
        let words =
            "{\"status\":\"Pulling from library/x\"}\r\n{\"errorDetail\":{\"message\":\"m\"},\"error\":\"denied\"}\r\n";
        assert_eq!(last_words(words.as_bytes()), "denied");
        assert_eq!(last_words(b"{\"message\":\"no such host\"}\n"), "no such host");
        assert_eq!(last_words(b"odd"), "odd");
    }
}
