//! `larder doctor` on machines that are set up well, and on those that are broken in the usual ways: it names the cause.
//!
//! Engines exempt loopback from certificates and proxies, so some mirrors here listen on this machine's own address.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};

use super::larder::Larder;
use super::process::{command_over_etc, wanted};
use super::scratch::{Scratch, private_address};
use super::{containerd, docker, podman, proxy};

/// What doctor found.
struct Diagnosis {
    code: i32,
    report: Value,
}

impl Diagnosis {
    /// On a machine whose `/etc` is that of `home`.
    fn of(home: &Path, engine: &str, arguments: &[&str]) -> Diagnosis {
        let mut doctor = Diagnosis::asked_by_a_user(home, engine);
        doctor.args(arguments);
        doctor.env("DOCKER_HOST", format!("unix://{}", home.join("sock").display()));
        doctor.env("CONTAINERD_ADDRESS", home.join("sock"));
        doctor.env("CONTAINERS_STORAGE_CONF", home.join("storage.conf"));
        doctor.env("CONTAINERS_CONF", home.join("containers.conf"));
        Diagnosis::by(doctor)
    }

    /// Who has set no variable that says where an engine is; that user's home and runtime directory is `home`.
    fn asked_by_a_user(home: &Path, engine: &str) -> Command {
        let mut doctor = command_over_etc(env!("CARGO_BIN_EXE_larder"), home, &home.join("etc"));
        doctor.args(["doctor", "--json", "--engine", engine]);
        doctor
    }

    fn by(mut doctor: Command) -> Diagnosis {
        let output = doctor.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        Diagnosis { code: output.status.code().unwrap(), report }
    }

    /// Everything that it says, in one text.
    fn text(&self) -> String {
        format!("{:#}", self.report)
    }

    #[track_caller]
    fn is_good(&self) {
        assert_eq!((self.code, &self.report["proven"]), (0, &json!(true)), "{}", self.text());
        assert!(self.text().contains("its probe arrived there"), "{}", self.text());
        assert!(!self.text().contains("\"fail\""), "{}", self.text());
    }

    /// That one finding is a failure, and says all of `words`.
    #[track_caller]
    fn names(&self, words: &[&str]) {
        assert_eq!((self.code, &self.report["proven"]), (1, &json!(false)), "{}", self.text());
        let findings = self.report["findings"].as_array().unwrap();
        let failures = findings.iter().filter(|finding| finding["mark"] == "fail").map(Value::to_string);
        let named = failures.filter(|line| words.iter().all(|word| line.contains(word))).count();
        assert_eq!(named, 1, "{words:?}: {}", self.text());
    }
}

/// An address of this machine that no engine makes exceptions for, and a free port there.
fn own_address() -> SocketAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Sends nothing: it only asks the system which address it would be sent from.
    socket.connect("192.0.2.254:9").expect("a machine with a network");
    let own: IpAddr = socket.local_addr().unwrap().ip();
    TcpListener::bind((own, 0)).unwrap().local_addr().unwrap()
}

/// A machine whose daemon.json is this, and whose dockerd has these variables.
fn with_daemon_json(text: &str, variables: &[(&str, &str)]) -> docker::Docker {
    let home = Scratch::new("docker");
    home.write("etc/docker/daemon.json", text);
    docker::Docker::on_machine(home, variables)
}

fn mirrors(url: &str) -> String {
    json!({ "registry-mirrors": [url] }).to_string()
}

fn diagnosed(docker: &docker::Docker, arguments: &[&str]) -> Diagnosis {
    Diagnosis::of(docker.home().path(), "docker", arguments)
}

#[test]
fn docker_is_proven_to_pull_through_the_mirror_or_found_not_to_be_reloaded_or_to_ask_a_dead_one() {
    if !wanted(&docker::PROGRAMS) {
        return;
    }
    let larder = Larder::alone_at(private_address(), false);
    let home = Scratch::new("docker");
    larder.set_up("docker", home.path());
    let docker = docker::Docker::on_machine(home, &[]);
    diagnosed(&docker, &["--mirror", &larder.url()]).is_good();
    // Its own configuration says which mirror.
    let told = diagnosed(&docker, &[]);
    told.is_good();
    assert_eq!(told.report["mirror"], larder.url());
    assert!(told.text().contains("docker/"), "whose probe was it? {}", told.text());

    // The file says something else than the daemon was started with.
    let other = Larder::alone_at(private_address(), false);
    docker.home().write("etc/docker/daemon.json", &mirrors(&other.url()));
    diagnosed(&docker, &[]).names(&["was not read since", "systemctl reload docker"]);

    docker.home().write("etc/docker/daemon.json", &mirrors(&larder.url()));
    let url = larder.url();
    drop(larder);
    diagnosed(&docker, &[]).names(&["nobody listens at", &url, "is larder running"]);
}

#[test]
fn a_wrong_port_is_found_with_the_right_one() {
    if !wanted(&docker::PROGRAMS) {
        return;
    }
    let free = private_address();
    let larder = Larder::alone_at(SocketAddr::new(free.ip(), 5000), false);
    let docker = with_daemon_json(&mirrors(&format!("http://{free}")), &[]);
    diagnosed(&docker, &[]).names(&["nobody listens", "a Larder answers at", &larder.url()]);
}

#[test]
fn http_against_https_is_found_in_both_directions() {
    if !wanted(&docker::PROGRAMS) {
        return;
    }
    let (plain, secured) = (Larder::alone_at(private_address(), false), Larder::alone_at(private_address(), true));
    let docker = with_daemon_json(&mirrors(&secured.url().replace("https", "http")), &[]);
    let found = diagnosed(&docker, &[]);
    found.names(&["speaks HTTPS, not HTTP", &format!("--mirror {}", secured.url())]);
    let wrong = plain.url().replace("http", "https");
    diagnosed(&docker, &["--mirror", &wrong]).names(&["speaks HTTP, not HTTPS", &format!("--mirror {}", plain.url())]);
}

#[test]
fn docker_that_does_not_trust_the_authority_is_found_in_either_image_store() {
    if !wanted(&docker::PROGRAMS) {
        return;
    }
    let larder = Larder::alone_at(own_address(), true);
    let exempt = larder.mirror().ip().to_string();
    let ca = std::fs::read_to_string(larder.ca()).unwrap();
    let own = format!("etc/docker/certs.d/{}/ca.crt", larder.mirror());
    for (store, has_ca) in [("classic", false), ("classic", true), ("containerd", true)] {
        let home = Scratch::new("docker");
        let features = json!({ "containerd-snapshotter": store == "containerd" });
        let text = json!({ "registry-mirrors": [larder.url()], "features": features }).to_string();
        home.write("etc/docker/daemon.json", &text);
        if has_ca {
            home.write(&own, &ca);
        }
        let docker = docker::Docker::on_machine(home, &[("NO_PROXY", exempt.as_str())]);
        let found = diagnosed(&docker, &[]);
        // Docker before 23 has no other store, and ignores the feature.
        if !found.text().contains(&format!("{store} image store")) {
            assert_eq!(store, "containerd", "{}", found.text());
            continue;
        }
        // Below the mirror's own name the classic store looks, and the other one does not.
        match (store, has_ca) {
            ("classic", true) => found.is_good(),
            ("classic", false) => found.names(&["does not trust the mirror's certificate", "its authority is unknown"]),
            _ => found.names(&["does not trust", "it ignores", "certs.d/docker.io/larder-ca.crt"]),
        }
    }
    // And what setup writes is right for both.
    let home = Scratch::new("docker");
    larder.set_up("docker", home.path());
    let text = json!({ "registry-mirrors": [larder.url()], "features": { "containerd-snapshotter": true } });
    home.write("etc/docker/daemon.json", &text.to_string());
    let docker = docker::Docker::on_machine(home, &[("NO_PROXY", exempt.as_str())]);
    diagnosed(&docker, &[]).is_good();
}

/// Debian's dockerd may be too old for that store, so here a socket says what such a daemon says.
#[test]
fn an_authority_where_the_containerd_store_does_not_look_is_found() {
    if !wanted(&[]) {
        return;
    }
    let larder = Larder::alone_at(own_address(), true);
    let home = Scratch::new("docker");
    home.write("etc/docker/daemon.json", &mirrors(&larder.url()));
    let ca = std::fs::read_to_string(larder.ca()).unwrap();
    home.write(&format!("etc/docker/certs.d/{}/ca.crt", larder.mirror()), &ca);
    let info = json!({
        "ServerVersion": "29.0.0",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "RegistryConfig": { "Mirrors": [larder.url()] }
    });
    daemon_that_says(info, &home.join("sock"));
    let found = Diagnosis::of(home.path(), "docker", &[]);
    found.names(&["does not trust", "it ignores", "certs.d/docker.io/larder-ca.crt"]);
    found.names(&["does not pull through the mirror", "x509"]);
}

/// A rootless daemon is a user's: its socket, its files and its unit are.
#[test]
fn a_rootless_docker_is_found_with_its_users_files() {
    if !wanted(&[]) {
        return;
    }
    let larder = Larder::alone_at(private_address(), false);
    let home = Scratch::new("docker");
    home.write("etc/docker/daemon.json", "{}");
    let file = home.write(".config/docker/daemon.json", &mirrors(&larder.url()));
    let info =
        json!({ "ServerVersion": "28.0.0", "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"] });
    daemon_that_says(info, &home.join("docker.sock"));
    let found = Diagnosis::by(Diagnosis::asked_by_a_user(home.path(), "docker"));
    found.names(&["was not read since", file.to_str().unwrap(), "systemctl --user restart docker"]);
    assert!(found.text().contains("rootless, at "), "{}", found.text());
}

#[test]
fn a_mirror_that_wants_a_certificate_is_proven_with_one_and_who_has_none_is_told() {
    if !wanted(&docker::PROGRAMS) {
        return;
    }
    let larder = Larder::guarded_at(own_address());
    let exempt = larder.mirror().ip().to_string();
    let folder = format!("etc/docker/certs.d/{}", larder.mirror());
    let home = Scratch::new("docker");
    home.write("etc/docker/daemon.json", &mirrors(&larder.url()));
    home.write(&format!("{folder}/ca.crt"), &std::fs::read_to_string(larder.ca()).unwrap());
    let docker = docker::Docker::on_machine(home, &[("NO_PROXY", exempt.as_str())]);
    let found = diagnosed(&docker, &[]);
    found.names(&["wants a certificate of its clients"]);
    found.names(&["docker", "has no certificate to show", &folder]);

    let show = |[cert, key]: [String; 2]| {
        docker.home().write(&format!("{folder}/client.cert"), &cert);
        docker.home().write(&format!("{folder}/client.key"), &key);
        diagnosed(&docker, &[])
    };
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["guest".to_owned()]).unwrap();
    show([cert.pem(), signing_key.serialize_pem()]).names(&["does not let in", "client.cert", "another CA"]);
    show(larder.guest()).is_good();
}

/// Answers as a daemon does that is like this, and that fails to pull.
fn daemon_that_says(info: Value, socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let failed = "{\"errorDetail\":{},\"error\":\"x509: certificate signed by unknown authority\"}".to_owned();
            let body = if head.starts_with(b"GET /info ") { info.to_string() } else { failed };
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
}

#[test]
fn a_proxy_between_docker_and_the_mirror_is_found() {
    if !wanted(&[&docker::PROGRAMS[..], &[proxy::TINYPROXY]].concat()) {
        return;
    }
    let larder = Larder::alone_at(own_address(), false);
    let scratch = Scratch::new("proxy");
    let (_proxy, port) = proxy::tinyproxy(scratch.path(), "tinyproxy");
    let http_proxy = format!("http://127.0.0.1:{port}");
    // The rig exempts this machine's own address.
    let proxied = [("HTTP_PROXY", http_proxy.as_str()), ("NO_PROXY", "")];
    let docker = with_daemon_json(&mirrors(&larder.url()), &proxied);
    let exempt = larder.mirror().ip().to_string();
    diagnosed(&docker, &[]).names(&["through the proxy", &http_proxy, &format!("add {exempt} to NO_PROXY")]);
    drop(docker);
    let exempted = [("HTTP_PROXY", http_proxy.as_str()), ("NO_PROXY", exempt.as_str())];
    let docker = with_daemon_json(&mirrors(&larder.url()), &exempted);
    diagnosed(&docker, &[]).is_good();
}

#[test]
fn containerd_is_proven_to_pull_through_the_mirror_or_found_not_to_trust_it() {
    if !wanted(&containerd::PROGRAMS) {
        return;
    }
    // As the rig's containerd is: what this machine's file says is about another one.
    let without_cri = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    for tls in [false, true] {
        let larder = Larder::alone_at(private_address(), tls);
        let containerd = containerd::Containerd::using(&larder);
        containerd.home().write("etc/containerd/config.toml", without_cri);
        Diagnosis::of(containerd.home().path(), "containerd", &[]).is_good();
        if tls {
            let without = containerd::Containerd::set_up_by(|root| larder.set_up_without_ca("containerd", root));
            without.home().write("etc/containerd/config.toml", without_cri);
            let found = Diagnosis::of(without.home().path(), "containerd", &[]);
            found.names(&["does not trust the mirror's certificate", "docker.io/larder-ca.pem"]);
        }
    }
}

#[test]
fn podman_is_proven_to_pull_through_the_mirror_or_found_not_to_trust_it() {
    if !wanted(&podman::PROGRAMS) {
        return;
    }
    let machine = |set_up: &dyn Fn(&Path)| {
        let home = Scratch::new("podman");
        set_up(home.path());
        home.write("etc/containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        let (root, run) = (home.join("root"), home.join("run"));
        home.write("storage.conf", &format!("[storage]\ndriver = \"vfs\"\ngraphroot = {root:?}\nrunroot = {run:?}\n"));
        let tmp = home.join("tmp");
        let engine = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        home.write("containers.conf", &format!("{engine}tmp_dir = {tmp:?}\n"));
        home
    };
    for tls in [false, true] {
        let larder = Larder::alone_at(private_address(), tls);
        let home = machine(&|root| larder.set_up("podman", root));
        Diagnosis::of(home.path(), "podman", &[]).is_good();
        if tls {
            let home = machine(&|root| larder.set_up_without_ca("podman", root));
            let found = Diagnosis::of(home.path(), "podman", &[]);
            found.names(&["does not trust the mirror's certificate", "/etc/containers/certs.d/"]);
        } else {
            let nobody = machine(&|root| std::fs::create_dir_all(root.join("etc")).unwrap());
            let found = Diagnosis::of(nobody.path(), "podman", &["--mirror", &larder.url()]);
            found.names(&["is not configured to use", "larder setup podman"]);
        }
    }
}
