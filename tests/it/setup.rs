//! `larder setup` through the built program: what it prints, and what it does to files that are there.
//!
//! Whether real clients understand what it writes is tried in `clients`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::binary::larder;
use crate::support::larder::files;

const URL: &str = "http://mirror.lan:5000";

struct Answer {
    code: i32,
    out: String,
    err: String,
}

fn setup(arguments: &[&str]) -> Answer {
    let output = larder().arg("setup").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A machine whose `/` is a temporary directory.
struct Machine(TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().unwrap())
    }

    fn setup(&self, client: &str, arguments: &[&str]) -> Answer {
        let root = self.0.path().to_str().unwrap();
        setup(&[&[client, "--mirror", URL, "--write", "--root", root], arguments].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The copies that were kept of a file.
    fn copies(&self, name: &str) -> Vec<String> {
        let prefix = self.path(&format!("{name}.before-larder-"));
        let kept = files(self.0.path()).into_iter();
        let kept = kept.filter(|(path, _)| path.to_str().unwrap().starts_with(prefix.to_str().unwrap()));
        kept.map(|(_, content)| String::from_utf8(content).unwrap()).collect()
    }
}

fn ca_file(home: &Path) -> PathBuf {
    let own = rcgen::generate_simple_self_signed(["mirror.lan".to_owned()]).unwrap();
    let (ca, key) = (home.join("ca.pem"), home.join("key.pem"));
    fs::write(&ca, own.cert.pem()).unwrap();
    fs::write(key, own.signing_key.serialize_pem()).unwrap();
    ca
}

#[test]
fn without_write_it_prints_the_files_and_what_to_do() {
    let cases = [
        (
            "docker",
            "/etc/docker/daemon.json",
            "\"registry-mirrors\": [\"http://mirror.lan:5000\"]",
            "systemctl reload docker",
        ),
        (
            "containerd",
            "/etc/containerd/certs.d/docker.io/hosts.toml",
            "[host.\"http://mirror.lan:5000\"]",
            "config_path",
        ),
        ("podman", "/etc/containers/registries.conf.d/50-larder-docker.io.conf", "insecure = true", "podman info"),
    ];
    for (client, path, content, then) in cases {
        let answer = setup(&[client, "--mirror", URL]);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{client}");
        for wanted in [&format!("==> {path}\n"), content, then, "NO_PROXY"] {
            assert!(answer.out.contains(wanted), "{client}: {wanted} is not in\n{}", answer.out);
        }
        assert!(!answer.out.contains("insecure-registries"), "{}", answer.out);
    }
}

#[test]
fn what_else_is_in_a_daemon_json_stays_and_what_it_was_is_kept() {
    let machine = Machine::new();
    let old = "{\n    \"log-driver\": \"local\",\n    \"unheard-of\": { \"b\": 1, \"a\": 2.50 },\n    \
               \"registry-mirrors\": [\"https://old.lan\"]\n}\n";
    machine.write("etc/docker/daemon.json", old);
    fs::set_permissions(machine.path("etc/docker/daemon.json"), Permissions::from_mode(0o640)).unwrap();
    let answer = machine.setup("docker", &[]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    assert!(
        answer.out.contains("is changed; it was ") && answer.out.contains("systemctl reload docker"),
        "{}",
        answer.out
    );
    let new = machine.read("etc/docker/daemon.json");
    assert_eq!(new, old.replace("[\"https://old.lan\"]", "[\"http://mirror.lan:5000\",\"https://old.lan\"]"));
    let mode = fs::metadata(machine.path("etc/docker/daemon.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(machine.copies("etc/docker/daemon.json"), [old]);

    // The second time there is nothing to do, so nothing is done and nobody is told to reload anything.
    let answer = machine.setup("docker", &[]);
    assert!(answer.out.contains("says so already") && !answer.out.contains("reload"), "{}", answer.out);
    assert_eq!(machine.read("etc/docker/daemon.json"), new);
    assert_eq!(machine.copies("etc/docker/daemon.json").len(), 1);
}

#[test]
fn a_daemon_json_that_docker_would_not_read_is_left_alone() {
    let machine = Machine::new();
    machine.write("etc/docker/daemon.json", "{ \"debug\": true, }");
    let answer = machine.setup("docker", &["--force"]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("daemon.json is left as it is") && answer.err.lines().count() == 1, "{}", answer.err);
    assert_eq!(files(machine.0.path()).len(), 1);
}

#[test]
fn every_client_is_set_up_on_an_empty_machine_and_a_second_time_changes_nothing() {
    let (machine, home) = (Machine::new(), tempfile::tempdir().unwrap());
    let ca = ca_file(home.path());
    let https = ["--mirror", "https://mirror.lan:5000", "--ca", ca.to_str().unwrap()];
    for client in ["docker", "containerd", "podman"] {
        let root = machine.0.path().to_str().unwrap();
        let all =
            [&[client, "--write", "--root", root, "--registry", "docker.io", "--registry", "ghcr.io"], &https[..]]
                .concat();
        let answer = setup(&all);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{client}");
        let before = files(machine.0.path());
        let again = setup(&all);
        assert_eq!(again.code, 0);
        assert!(!again.out.contains("is written") && !again.out.contains("is changed"), "{}", again.out);
        assert_eq!(files(machine.0.path()), before);
    }
    let mut written: Vec<String> = files(machine.0.path())
        .into_iter()
        .map(|(path, _)| path.strip_prefix(machine.0.path()).unwrap().to_str().unwrap().to_owned())
        .collect();
    written.sort();
    let wanted = [
        "etc/containerd/certs.d/docker.io/hosts.toml",
        "etc/containerd/certs.d/docker.io/larder-ca.pem",
        "etc/containerd/certs.d/ghcr.io/hosts.toml",
        "etc/containerd/certs.d/ghcr.io/larder-ca.pem",
        "etc/containers/certs.d/mirror.lan:5000/larder-ca.crt",
        "etc/containers/registries.conf.d/50-larder-docker.io.conf",
        "etc/containers/registries.conf.d/50-larder-ghcr.io.conf",
        "etc/docker/certs.d/docker.io/larder-ca.crt",
        "etc/docker/certs.d/ghcr.io/hosts.toml",
        "etc/docker/certs.d/ghcr.io/larder-ca.pem",
        "etc/docker/certs.d/mirror.lan:5000/larder-ca.crt",
        "etc/docker/daemon.json",
    ];
    assert_eq!(written, wanted);
    let daemon: Value = serde_json::from_str(&machine.read("etc/docker/daemon.json")).unwrap();
    assert_eq!(daemon, json!({ "registry-mirrors": ["https://mirror.lan:5000"] }));
}

#[test]
fn another_mirror_replaces_what_we_wrote_and_nothing_that_others_did() {
    let machine = Machine::new();
    let hosts = "etc/containerd/certs.d/docker.io/hosts.toml";
    assert_eq!(machine.setup("containerd", &[]).code, 0);
    let first = machine.read(hosts);
    assert_eq!(
        machine.setup("containerd", &["--mirror", "http://other.lan:5000"]).code,
        2,
        "--mirror stands there twice"
    );
    let root = machine.0.path().to_str().unwrap().to_owned();
    let other = ["containerd", "--mirror", "http://other.lan:5000", "--write", "--root", &root];
    assert_eq!(setup(&other).code, 0);
    assert!(machine.read(hosts).contains("http://other.lan:5000"));
    assert_eq!(machine.copies(hosts), [first]);

    let foreign = "server = \"https://registry-1.docker.io\" # by hand\n";
    machine.write(hosts, foreign);
    let answer = setup(&other);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("not written by larder setup") && answer.err.contains("--force"), "{}", answer.err);
    assert_eq!(machine.read(hosts), foreign);
    assert_eq!(setup(&[&other[..], &["--force"]].concat()).code, 0);
    assert!(machine.copies(hosts).contains(&foreign.to_owned()));
}

#[test]
fn of_several_files_none_is_written_when_one_must_not_be() {
    let machine = Machine::new();
    machine.write("etc/containerd/certs.d/ghcr.io/hosts.toml", "# by hand\n");
    let answer = machine.setup("containerd", &["--registry", "docker.io", "--registry", "ghcr.io"]);
    assert_eq!(answer.code, 1);
    assert_eq!(files(machine.0.path()).len(), 1, "the other one was written");
}

#[test]
fn podmans_own_entry_for_a_registry_is_not_replaced_behind_its_back() {
    let machine = Machine::new();
    let own =
        "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = \"docker.io\"\nblocked = true\n";
    machine.write("etc/containers/registries.conf", own);
    let answer = machine.setup("podman", &[]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("registries.conf has an entry for docker.io"), "{}", answer.err);
    assert_eq!(machine.setup("podman", &["--registry", "ghcr.io"]).code, 0, "this one is about something else");
    assert_eq!(machine.setup("podman", &["--force"]).code, 0);
    let ours = machine.path("etc/containers/registries.conf.d");
    assert_eq!(files(&ours).len(), 2, "a registry was added, and the one before it stays");
    assert_eq!(machine.read("etc/containers/registries.conf"), own);

    machine.write("etc/containers/registries.conf", "[registries.search]\nregistries = [\"docker.io\"]\n");
    let answer = machine.setup("podman", &["--force"]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("old form"), "{}", answer.err);
}

#[test]
fn a_link_stays_a_link() {
    let machine = Machine::new();
    machine.write("srv/daemon.json", "{}");
    fs::create_dir_all(machine.path("etc/docker")).unwrap();
    std::os::unix::fs::symlink("../../srv/daemon.json", machine.path("etc/docker/daemon.json")).unwrap();
    assert_eq!(machine.setup("docker", &[]).code, 0);
    assert!(fs::symlink_metadata(machine.path("etc/docker/daemon.json")).unwrap().is_symlink());
    assert!(machine.read("srv/daemon.json").contains(URL));
}

#[test]
fn wrong_use_is_told_in_one_line_or_by_clap() {
    let home = tempfile::tempdir().unwrap();
    let (ca, key) = (ca_file(home.path()), home.path().join("key.pem"));
    let (ca, key) = (ca.to_str().unwrap(), key.to_str().unwrap());
    let cases: [(&[&str], i32, &str); 8] = [
        (&["docker", "--mirror", "mirror.lan:5000"], 2, "http://"),
        (&["docker", "--mirror", "http://mirror.lan:5000/path"], 2, "without user, path or query"),
        (&["docker", "--mirror", "http://me:pw@mirror.lan"], 2, "without user, path or query"),
        (&["docker", "--mirror", URL, "--ca", ca], 2, "https://"),
        (&["docker", "--mirror", "https://mirror.lan", "--ca", key], 2, "not a certificate"),
        (&["docker", "--mirror", "https://mirror.lan", "--ca", "/nowhere"], 1, "/nowhere"),
        (&["docker", "--force"], 2, "--write"),
        (&["containerd", "--registry", "Not A Registry"], 2, "not a registry"),
    ];
    for (arguments, code, wanted) in cases {
        let answer = setup(arguments);
        assert_eq!(answer.code, code, "{arguments:?}: {}", answer.err);
        assert!(answer.err.contains(wanted), "{arguments:?}: {}", answer.err);
    }
}
