//! What is shipped for systemd, Kubernetes and container engines, in the hands of their own programs.
//!
//! No cluster and no service manager runs here: the unit is verified and rated, the manifests are assembled and compared
//! with themselves, and only the image is really loaded.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::docker::{self, Docker};
use super::http;
use super::process::{Program, command, run, wanted};
use super::scratch::{Scratch, private_address, wait_until};
use crate::deploy;

const SYSTEMD_ANALYZE: Program = Program::new("systemd-analyze", "systemd");
const KUBECTL: Program = Program::new("kubectl", "kubernetes-client");

/// Exposure, in tenths, above which the unit is not hardened any more. It was 14 when this was written.
const MOST_EXPOSED: &str = "--threshold=15";

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_and_rates_it_well() {
    if !wanted(&[SYSTEMD_ANALYZE]) {
        return;
    }
    let home = Scratch::new("unit");
    let unit = deploy::text("systemd/larder.service").replace("/usr/local/bin/larder", env!("CARGO_BIN_EXE_larder"));
    let unit = home.write("larder.service", &unit);
    let said = run(SYSTEMD_ANALYZE.command(home.path()).args(["verify", "--man=no"]).arg(&unit));
    assert_eq!(said, "");
    run(SYSTEMD_ANALYZE
        .command(home.path())
        .args(["security", "--no-pager", "--offline=yes", MOST_EXPOSED])
        .arg(&unit));
}

#[test]
fn the_manifests_for_kubernetes_fit_together() {
    if !wanted(&[KUBECTL]) {
        return;
    }
    let home = Scratch::new("kustomize");
    let text = run(KUBECTL.command(home.path()).arg("kustomize").arg(deploy::file("kubernetes")));
    let objects: Vec<Value> =
        serde_yaml_ng::Deserializer::from_str(&text).map(|object| Value::deserialize(object).unwrap()).collect();
    let one = |kind: &str, name: &str| {
        let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in\n{text}"))
    };
    for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
        assert_eq!(object["metadata"]["namespace"], "larder", "{object}");
    }
    let set = one("StatefulSet", "larder");
    let template = &set["spec"]["template"];
    let pod = &template["spec"];
    let container = &pod["containers"][0];
    assert_eq!(set["spec"]["replicas"], 1, "two processes on one data directory are refused");
    assert_eq!(set["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);

    // Ports have names, and every name that is used is one of them.
    let ports: Vec<&Value> = container["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{probe}");
    }
    for (service, port) in [("larder", "mirror"), ("larder-admin", "admin")] {
        let spec = &one("Service", service)["spec"];
        assert_eq!(spec["selector"], template["metadata"]["labels"]);
        assert!(spec["ports"].as_array().unwrap().iter().all(|it| it["targetPort"] == port), "{service}");
        assert!(ports.contains(&&Value::from(port)));
    }
    let policy = &one("NetworkPolicy", "larder")["spec"];
    assert_eq!(policy["podSelector"]["matchLabels"], template["metadata"]["labels"]);
    assert!(policy["ingress"][0].get("from").is_none(), "anybody may pull");
    assert!(policy["ingress"][1]["from"].is_array(), "not anybody may look");
    let monitor = &one("ServiceMonitor", "larder")["spec"];
    let labels = &one("Service", "larder-admin")["metadata"]["labels"];
    assert_eq!(&monitor["selector"]["matchLabels"], labels);
    assert_eq!(labels[monitor["jobLabel"].as_str().unwrap()], "larder", "the alerts look for a job of this name");
    assert_ne!(&one("Service", "larder")["metadata"]["labels"], labels, "the mirror's service would be scraped, too");

    // What is mounted exists, and the configuration is where the arguments say.
    let map = pod["volumes"][0]["configMap"]["name"].as_str().unwrap();
    assert!(one("ConfigMap", map)["data"]["larder.toml"].is_string());
    assert_eq!(container["args"][2], "/etc/larder/larder.toml");
    let mounts = container["volumeMounts"].as_array().unwrap();
    let claim = &set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"];
    assert!(mounts.iter().any(|mount| &mount["name"] == claim && mount["mountPath"] == "/var/lib/larder"));
    // What the namespace demands of every pod.
    assert_eq!(one("Namespace", "larder")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(
        (&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["seccompProfile"]["type"]),
        (&true.into(), &"RuntimeDefault".into())
    );
    let own = &container["securityContext"];
    assert_eq!((&own["allowPrivilegeEscalation"], &own["capabilities"]["drop"][0]), (&false.into(), &"ALL".into()));
}

/// With `LARDER_STATIC_BINARY` (what `deploy/image.sh` is meant for) the image is run, too. The binary of a test build needs
/// libraries that the image has not, so another static program stands in its place without it.
#[test]
fn the_image_is_the_same_twice_and_docker_takes_it() {
    if !wanted(&[&docker::PROGRAMS[..], &[Program::new("busybox", "busybox-static")]].concat()) {
        return;
    }
    let home = Scratch::new("image");
    let built = std::env::var_os("LARDER_STATIC_BINARY").map(PathBuf::from);
    let binary = built.as_deref().unwrap_or(Path::new("/bin/busybox"));
    let archives = ["one.tar", "two.tar"].map(|name| home.join(name));
    let digests = archives.each_ref().map(|archive| {
        let mut script = command(deploy::file("image.sh"), home.path());
        run(script.env("SOURCE_DATE_EPOCH", "1700000000").arg(binary).arg(archive).arg("larder:tried"))
    });
    assert_eq!(digests[0], digests[1]);
    let [one, two] = archives.each_ref().map(|archive| fs::read(archive).unwrap());
    assert!(one == two, "made twice, and not the same bytes");

    let docker = Docker::alone();
    docker.docker(&["load", "--input", archives[0].to_str().unwrap()]);
    let found: Value = serde_json::from_str(&docker.docker(&["image", "inspect", "larder:tried"])).unwrap();
    let config = &found[0]["Config"];
    assert_eq!((&config["User"], &config["Entrypoint"][0]), (&"65532:65532".into(), &"/larder".into()));
    assert_eq!(found[0]["Created"], "2023-11-14T22:13:20Z");
    if built.is_none() {
        return;
    }
    let (mirror, admin) = (private_address(), private_address());
    let (mirror, at) = (format!("LARDER_MIRROR_LISTEN={mirror}"), format!("LARDER_ADMIN_LISTEN={admin}"));
    let hardened = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host"];
    let run = ["run", "--detach", "--name", "larder", "--env", &mirror, "--env", &at];
    docker.docker(&[&run[..], &hardened, &["larder:tried"]].concat());
    wait_until("the image serves", std::time::Duration::from_secs(30), || {
        http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    docker.docker(&["stop", "larder"]);
    let code = docker.docker(&["inspect", "--format", "{{.State.ExitCode}}", "larder"]);
    assert_eq!(code.trim(), "0", "{}", docker.docker(&["logs", "larder"]));
}
