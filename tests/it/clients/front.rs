//! A real proxy in front of the registry, Debian's nginx, which speaks TLS for it and tells it nothing of that: clients are
//! sent for their tokens to the address that the operator has named, and never to one they cannot reach.

use std::net::TcpStream;

use super::podman::CERTS;
use super::process::{Process, Program, attempt, command, run, wanted};
use super::scratch::{Scratch, private_address};
use super::skopeo::SKOPEO;
use crate::support::client::Call;
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;
use crate::support::pushing::Remote;

const NGINX: Program = Program::new("nginx", "nginx");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_that_speaks_tls_tokens_are_fetched_where_the_operator_says() {
    if !wanted(&[NGINX, SKOPEO]) {
        return;
    }
    let home = Scratch::new("front");
    let front = private_address();
    let mut certify = command(env!("CARGO_BIN_EXE_larder"), home.path());
    run(certify.args(["cert", "--name", &front.ip().to_string(), "--out"]).arg(home.join("certs")));
    home.write("htpasswd", &format!("anna:{}\n", bcrypt::hash("anna-secret", 4).unwrap()));
    // Tokens are given where somebody may pull without an account.
    let rules = format!(
        "public_url = \"https://{front}\"\nhtpasswd = {:?}\nanonymous = \"pull\"\n[[registry.repository]]\n\
         pattern = \"team/**\"\npull = [\"anna\"]\npush = [\"anna\"]",
        home.join("htpasswd")
    );
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, &rules).await;
    let _nginx = nginx(&home, front.to_string().as_str(), &larder.registry().to_string());

    let image = Image::unpackable(1);
    let repo = Remote::new(larder.registry(), "team/app");
    repo.logged_in("anna", "anna-secret").push("v1", &image).await;
    let challenge = Call::get("/v2/").header("Host", "somewhere.else").send(larder.registry()).await;
    let realm = format!("Bearer realm=\"https://{front}/token\",service=\"larder\"");
    assert_eq!(challenge.header("www-authenticate"), Some(realm.as_str()));

    let ca = home.join(&format!("etc{}{front}", CERTS.trim_start_matches("/etc"))).join("ca.crt");
    std::fs::create_dir_all(ca.parent().unwrap()).unwrap();
    std::fs::copy(home.join("certs/ca.pem"), &ca).unwrap();
    let skopeo = |arguments: &[&str]| {
        let mut command = SKOPEO.command_over_etc(home.path(), &home.join("etc"));
        attempt(command.arg("--insecure-policy").args(arguments))
    };
    let (from, to) = (format!("docker://{front}/team/app:v1"), format!("docker://{front}/team/copy:v1"));
    let account = ["--username", "anna", "--password"];
    let login = |password: &str| skopeo(&[&["login"][..], &account, &[password, &front.to_string()]].concat());
    login("guessed").unwrap_err();
    skopeo(&["copy", &from, &to]).unwrap_err();
    login("anna-secret").unwrap();
    skopeo(&["copy", &from, &to]).unwrap();
    // Past what skopeo has mounted: a whole blob through the proxy, which follows each Location that it was given.
    let elsewhere = format!("dir:{}", home.join("there").display());
    skopeo(&["copy", &from, &elsewhere]).unwrap();
    skopeo(&["copy", &elsewhere, &format!("docker://{front}/team/again:v1")]).unwrap();
    for name in ["team/copy", "team/again"] {
        let repo = Remote { name: name.to_owned(), ..repo.clone() };
        repo.logged_in("anna", "anna-secret").assert_pulls("v1", &image).await;
    }
}

/// One that terminates TLS, and says to whom it passes on only what nginx says by itself.
fn nginx(home: &Scratch, front: &str, registry: &str) -> Process {
    let at = |name: &str| home.join(name).display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
        .concat();
    let config = format!(
        "user root;\ndaemon off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
         server {{ listen {front} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
         client_max_body_size 0; proxy_request_buffering off; location / {{ proxy_pass http://{registry}; }} }} }}\n",
        at("pid"),
        at("certs/server.pem"),
        at("certs/server-key.pem")
    );
    let config = home.write("nginx.conf", &config);
    let mut command = NGINX.command(home.path());
    command.args(["-e", "stderr", "-c"]).arg(config);
    let mut nginx = Process::spawn("nginx", &mut command, home.join("nginx.log"));
    nginx.wait_until_ready(|_| TcpStream::connect(front).ok());
    nginx
}
