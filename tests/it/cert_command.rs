//! `larder cert`, through the built program: its files, as OpenSSL, curl and the server itself see them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::binary::{Binary, larder, tries_other_programs};
use crate::support::client::{Call, Connection};

struct Answer {
    code: i32,
    out: String,
    err: String,
}

fn run(mut command: Command) -> Answer {
    let output = command.output().unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn cert(out: &Path, arguments: &[&str]) -> Answer {
    let mut command = larder();
    command.arg("cert").arg("--out").arg(out).args(arguments);
    run(command)
}

fn openssl(directory: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(arguments);
    run(command)
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn a_ca_is_made_once_and_signs_again() {
    let home = TempDir::new().unwrap();
    let out = home.path().join("deep/certs");
    let made = cert(&out, &["--name", "registry.lan", "--name", "192.168.1.5", "--name", "::1", "--port", "5001"]);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    for (name, mode) in [("ca.pem", 0o644), ("ca-key.pem", 0o600), ("server.pem", 0o644), ("server-key.pem", 0o600)] {
        assert_eq!(fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    for place in [
        "/etc/docker/certs.d/registry.lan:5001/ca.crt",
        "/etc/docker/certs.d/192.168.1.5:5001/ca.crt",
        "/etc/docker/certs.d/[::1]:5001/ca.crt",
        "/etc/docker/certs.d/docker.io/larder-ca.crt",
        "/etc/containerd/certs.d/registry.lan:5001/ca.crt",
        "/etc/containers/certs.d/registry.lan:5001/ca.crt",
        &format!("tls = {{ cert = {:?}, key = {:?} }}", out.join("server.pem"), out.join("server-key.pem")),
    ] {
        assert!(made.out.contains(place), "{place}: {}", made.out);
    }

    let all = ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"];
    let before = all.map(|name| read(&out, name));
    let refused = cert(&out, &["--name", "other.lan"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("server.pem is there already; --force"), "{}", refused.err);
    assert_eq!(all.map(|name| read(&out, name)), before);

    let forced = cert(&out, &["--name", "other.lan", "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
    let after = all.map(|name| read(&out, name));
    assert_eq!(after[..2], before[..2], "the CA stays");
    assert!(after[2] != before[2] && after[3] != before[3]);
    assert!(after[2].ends_with(&before[0]), "the chain is the server's and the CA's");
}

#[test]
fn half_a_ca_a_foreign_one_and_wrong_use_leave_everything_as_it_is() {
    let home = TempDir::new().unwrap();
    let (one, other) = (home.path().join("one"), home.path().join("other"));
    assert_eq!(cert(&one, &["--name", "a.lan"]).code, 0);
    assert_eq!(cert(&other, &["--name", "a.lan"]).code, 0);
    fs::copy(other.join("ca-key.pem"), one.join("ca-key.pem")).unwrap();
    let mixed = cert(&one, &["--name", "b.lan", "--force"]);
    assert!(mixed.code == 1 && mixed.err.contains("not made by `larder cert`"), "{}", mixed.err);
    fs::remove_file(one.join("ca-key.pem")).unwrap();
    let half = cert(&one, &["--name", "b.lan", "--force"]);
    assert!(half.code == 1 && half.err.contains("ca-key.pem is not"), "{}", half.err);
    assert!(!one.join("ca-key.pem").exists());

    let nowhere = home.path().join("nowhere");
    for arguments in [
        &[][..],
        &["--name", "https://mirror.lan"],
        &["--name", "mirror.lan:5000"],
        &["--name", "a", "--days", "826"],
        &["--name", "a", "--days", "0"],
        &["--name", "a", "--port", "0"],
    ] {
        let refused = cert(&nowhere, arguments);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{arguments:?}");
        assert!(!nowhere.exists());
    }
}

#[test]
fn openssl_verifies_the_chain_the_names_and_the_dates() {
    if !tries_other_programs() {
        return;
    }
    let home = TempDir::new().unwrap();
    assert_eq!(cert(home.path(), &["--name", "registry.lan", "--name", "*.team.lan", "--name", "10.1.2.3"]).code, 0);
    let verify = |host: &[&str]| {
        let all =
            [&["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem"], host, &["server.pem"]].concat();
        openssl(home.path(), &all)
    };
    for good in
        [&["-verify_hostname", "registry.lan"][..], &["-verify_hostname", "ui.team.lan"], &["-verify_ip", "10.1.2.3"]]
    {
        let answer = verify(good);
        assert_eq!((answer.code, answer.out.as_str()), (0, "server.pem: OK\n"), "{good:?}: {}", answer.err);
    }
    for bad in [&["-verify_hostname", "other.lan"][..], &["-verify_ip", "10.1.2.4"], &["-attime", "4102444800"]] {
        assert_ne!(verify(bad).code, 0, "{bad:?}");
    }
    let text = openssl(home.path(), &["x509", "-in", "server.pem", "-noout", "-text"]).out;
    assert!(text.contains("DNS:registry.lan, DNS:*.team.lan, IP Address:10.1.2.3"), "{text}");
    assert!(text.contains("CA:FALSE") && text.contains("TLS Web Server Authentication"), "{text}");
    let seconds = |days: u64| (days * 24 * 3600).to_string();
    for (file, days, good) in
        [("server.pem", 820, true), ("server.pem", 826, false), ("ca.pem", 3640, true), ("ca.pem", 3651, false)]
    {
        let ends = openssl(home.path(), &["x509", "-in", file, "-noout", "-checkend", &seconds(days)]);
        assert_eq!(ends.code == 0, good, "{file} {days}");
    }
    // A second server of the same CA.
    assert_eq!(cert(home.path(), &["--name", "other.lan", "--force", "--days", "90"]).code, 0);
    assert_eq!(verify(&["-verify_hostname", "other.lan"]).code, 0);
}

fn config(home: &Path) -> String {
    let file = |name: &str| home.join("certs").join(name);
    format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {:?}, key = {:?} }}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\"\n",
        home.join("data"),
        file("server.pem"),
        file("server-key.pem")
    )
}

#[tokio::test]
async fn the_server_serves_it_and_curl_trusts_it() {
    let home = TempDir::new().unwrap();
    let certs = home.path().join("certs");
    assert_eq!(cert(&certs, &["--name", "localhost", "--name", "127.0.0.1"]).code, 0);
    let server = Binary::start(home.path(), &config(home.path()), "info");
    let mut connection = Connection::open_tls(server.mirror, "localhost", &read(&certs, "ca.pem")).await.unwrap();
    assert_eq!(connection.call(&Call::get("/v2/")).await.status, 200);
    if !tries_other_programs() {
        return;
    }
    let curl = |host: &str, more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]).args(more);
        command.arg(format!("https://{host}:{}/v2/", server.mirror.port()));
        run(command)
    };
    let ca = certs.join("ca.pem");
    let trusting = ["--cacert", ca.to_str().unwrap()];
    for host in ["localhost", "127.0.0.1"] {
        let answer = curl(host, &trusting);
        assert_eq!((answer.code, answer.out.as_str()), (0, "{}"), "{host}: {}", answer.err);
    }
    assert_eq!(curl("127.0.0.1", &[]).code, 60, "without the CA");
    let elsewhere = format!("other.lan:{}:127.0.0.1", server.mirror.port());
    assert_eq!(curl("other.lan", &[&trusting[..], &["--resolve", &elsewhere]].concat()).code, 60, "by another name");
}
