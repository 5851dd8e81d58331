//! Podman as it is found, by its own account: `podman info` reads the same files as Buildah, skopeo and CRI-O.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::certificates::Chain;
use super::facts::{Passport, Podman, PodmanInfo, PodmanMirror};
use super::{command, places};
use crate::cli::client_files::{CONTAINERS_CERTS, DOCKER_CERTS};
use crate::cli::mirror_url::MirrorUrl;

/// How long it may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is asked of it: the rest of `podman info` differs from version to version.
const WANTED: &str = r#"{"version":{{json .Version.Version}},"storage":{{json .Store.GraphDriverName}},"registries":{{json .Registries}}}"#;

#[derive(Debug, Deserialize)]
struct Info {
    version: String,
    storage: String,
    registries: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Registry {
    blocked: bool,
    mirrors: Option<Vec<Mirror>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// The one on the PATH, if there is one. `configs` is this user's folder of configurations.
pub(super) async fn find(configs: Option<&Path>) -> Option<Podman> {
    let mut info = Command::new(command::find("podman")?);
    info.args(["info", "--format", WANTED]);
    let info = match command::run(info, PATIENCE).await {
        Ok(output) if output.succeeded => understood(&output.out),
        Ok(output) => Err(output.last_words()),
        Err(reason) => Err(reason),
    };
    let own_conf = configs.map(|configs| configs.join("containers/registries.conf")).filter(|path| path.exists());
    Some(Podman { info, own_conf, folder: PathBuf::new(), by_mirror: Vec::new() })
}

/// Looks for the authorities that it may know, of which one may vouch for the mirror.
pub(super) fn look_for_authorities(
    podman: &mut Podman,
    mirror: &MirrorUrl,
    home: Option<&Path>,
    chain: Option<&Chain>,
    now: SystemTime,
) {
    // It takes the first that is there, its user's before the machine's, and looks in no other.
    let own = home.map(|home| home.join(".config/containers/certs.d"));
    let folders = own.into_iter().chain([CONTAINERS_CERTS.into(), DOCKER_CERTS.into()]);
    let mut folders = folders.map(|folder| folder.join(mirror.authority()));
    let usual = Path::new(CONTAINERS_CERTS).join(mirror.authority());
    podman.folder = folders.find(|folder| folder.exists()).unwrap_or(usual);
    podman.by_mirror = places::authorities(&podman.folder, chain, now);
}

/// The certificates of its own that it has for the mirror.
pub(super) fn passports(podman: &Podman) -> Vec<Passport> {
    places::passports(&podman.folder)
}

/// Has it pull, and returns its last words.
pub(super) async fn pull(image: &str, patience: Duration) -> String {
    let Some(program) = command::find("podman") else { return String::new() };
    let mut pull = Command::new(program);
    pull.args(["pull", "--quiet", image]);
    match command::run(pull, patience).await {
        Ok(output) => output.last_words(),
        Err(reason) => reason,
    }
}

fn understood(text: &str) -> Result<PodmanInfo, String> {
    let info: Info = serde_json::from_str(text).map_err(|error| format!("podman info: {error}"))?;
    let registries = info.registries.unwrap_or_default();
    let hub = registries.get("docker.io").cloned().unwrap_or_else(|| serde_json::json!({}));
    let hub: Registry = serde_json::from_value(hub).map_err(|error| format!("podman info: {error}"))?;
    let mirrors = hub.mirrors.unwrap_or_default().into_iter().map(|mirror| PodmanMirror {
        location: mirror.location,
        insecure: mirror.insecure,
        pull_from: mirror.pull_from_mirror,
    });
    Ok(PodmanInfo { version: info.version, storage: info.storage, blocked: hub.blocked, mirrors: mirrors.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_from_podmans_own_account() {
        // As Podman 4.3.1 prints it.
        let text = r#"{"version":"4.3.1","storage":"overlay","registries":{"search":["docker.io"],"docker.io":
            {"Prefix":"docker.io","Location":"docker.io","Insecure":false,"PullFromMirror":"","Mirrors":
            [{"Location":"127.0.0.1:5000","Insecure":true,"PullFromMirror":"digest-only"}],"Blocked":false}}}"#;
        let info = understood(text).unwrap();
        let mirror =
            PodmanMirror { location: "127.0.0.1:5000".into(), insecure: true, pull_from: "digest-only".into() };
        assert_eq!((info.version.as_str(), info.blocked, info.mirrors), ("4.3.1", false, vec![mirror]));
        assert!(understood(r#"{"version":"5","storage":"vfs","registries":null}"#).unwrap().mirrors.is_empty());
        assert!(understood("no").is_err());
    }
}
