//! The files of `deploy/` agree with the program, with each other and with what they point to.
//!
//! What systemd, kubectl and Docker themselves think of them is tried in `clients/shipped.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Table;

use crate::support::binary::larder;
use crate::support::larder::files;

/// A file of `deploy/`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Its text.
pub fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

#[test]
fn every_snippet_is_what_its_client_parses() {
    let snippets = files(&file("clients"));
    assert!(snippets.len() >= 12, "the snippets were not found");
    for (path, content) in snippets {
        let content = String::from_utf8(content).unwrap();
        assert!(content.contains("mirror.lan:5000"), "{path:?} names no mirror");
        let scheme = if path.starts_with(file("clients/https")) { "https://" } else { "http://" };
        match path.extension().unwrap().to_str().unwrap() {
            "json" => {
                let daemon: Value = serde_json::from_str(&content).unwrap();
                let keys: Vec<&String> = daemon.as_object().unwrap().keys().collect();
                assert_eq!(keys, ["registry-mirrors"], "{path:?}");
                assert!(daemon["registry-mirrors"][0].as_str().unwrap().starts_with(scheme), "{path:?}");
            }
            "toml" => {
                let hosts: Table = content.parse().unwrap();
                let host = hosts["host"].as_table().unwrap().keys().next().unwrap();
                assert!(
                    host.starts_with(scheme) && hosts["server"].as_str().unwrap().starts_with("https://"),
                    "{path:?}"
                );
            }
            "conf" => {
                let conf: Table = content.parse().unwrap();
                for registry in conf["registry"].as_array().unwrap() {
                    let insecure = registry["mirror"][0].get("insecure").and_then(toml::Value::as_bool);
                    assert_eq!(insecure, (scheme == "http://").then_some(true), "{path:?}");
                }
            }
            other => panic!("{path:?}: no client reads .{other}"),
        }
    }
}

/// The words of a line of a Dockerfile, or the value of a key of the config in `image.sh`.
fn environment_of(words: &str) -> BTreeSet<String> {
    words.split([' ', ',', '"', '[', ']']).filter(|word| word.starts_with("LARDER_")).map(str::to_owned).collect()
}

#[test]
fn both_ways_to_make_the_image_make_the_same_one() {
    let (docker, script) = (text("Dockerfile"), text("image.sh"));
    let line =
        |start: &str| docker.lines().rfind(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
    let config = script.lines().find(|line| line.starts_with("{\"created\"")).unwrap();
    // The shell's variables are texts to a parser as well.
    let config: Value = serde_json::from_str(config).unwrap();
    let own = &config["config"];
    assert_eq!(own["User"], line("USER ").trim_start_matches("USER "));
    assert_eq!(own["Entrypoint"].to_string(), line("ENTRYPOINT ").trim_start_matches("ENTRYPOINT "));
    assert_eq!(own["Cmd"].to_string(), line("CMD ").trim_start_matches("CMD "));
    assert_eq!(own["StopSignal"], line("STOPSIGNAL ").trim_start_matches("STOPSIGNAL "));
    assert_eq!(environment_of(&own["Env"].to_string()), environment_of(line("ENV LARDER_")));
    for port in line("EXPOSE ").split(' ').skip(1) {
        assert!(own["ExposedPorts"][format!("{port}/tcp")].is_object(), "{port}");
    }
    assert!(own["Volumes"][line("VOLUME ").trim_start_matches("VOLUME ")].is_object());
    assert!(line("FROM ") == "FROM scratch" && docker.contains("--locked") && docker.contains("SOURCE_DATE_EPOCH"));
    // What the build needs is copied into it: the snippets are part of the program.
    for folder in ["src", "benches", "deploy/clients"] {
        assert!(docker.contains(&format!("COPY {folder} {folder}\n")), "{folder}");
    }
}

#[test]
fn the_environment_of_the_image_is_one_that_larder_takes() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("empty.toml"), "").unwrap();
    let docker = text("Dockerfile");
    let line = docker.lines().find(|line| line.starts_with("ENV LARDER_")).unwrap();
    let variables = line.trim_start_matches("ENV ").split(' ').map(|pair| pair.split_once('=').unwrap());
    let output = larder().arg("check-config").arg(home.path().join("empty.toml")).envs(variables).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains("0.0.0.0:5000") && shown.contains("/var/lib/larder"), "{shown}");
}

#[test]
fn the_compose_file_mounts_what_is_there_and_prometheus_finds_the_mirror() {
    let compose: Value = serde_yaml_ng::from_str(&text("compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["grafana", "larder", "prometheus"]);
    let mut mounted = 0;
    for volume in services.values().flat_map(|service| service["volumes"].as_array().unwrap()) {
        let source = volume.as_str().unwrap().split(':').next().unwrap();
        if source.starts_with('.') {
            assert!(file(source).exists(), "{source} is not there");
            mounted += 1;
        } else {
            assert!(compose["volumes"].as_object().unwrap().contains_key(source), "no volume {source}");
        }
    }
    assert_eq!(mounted, 4);
    assert!(file("..").join(services["larder"]["build"]["dockerfile"].as_str().unwrap()).is_file());
    let prometheus = fs::read_to_string(crate::grafana::file("prometheus.yml")).unwrap();
    assert!(prometheus.contains("larder:5080"), "the service is called larder, its admin port is 5080");
    // The provider looks where the dashboard is mounted.
    let boards: Value = serde_yaml_ng::from_str(
        &fs::read_to_string(crate::grafana::file("provisioning/dashboards/larder.yml")).unwrap(),
    )
    .unwrap();
    let folder = boards["providers"][0]["options"]["path"].as_str().unwrap();
    let mounts = services["grafana"]["volumes"].to_string();
    assert!(mounts.contains(&format!(":{folder}/larder.json:")), "{mounts}");
}

#[test]
fn the_configuration_for_kubernetes_is_accepted() {
    let output = larder().arg("check-config").arg(file("kubernetes/larder.toml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
