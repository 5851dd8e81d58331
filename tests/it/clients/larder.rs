//! The real `larder` binary between the upstream and the clients.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::http;
use super::process::{Process, command, run};
use super::registry::Registry;
use super::scratch::{Scratch, own_address, private_address, wait_until};

/// A running mirror of one upstream, as which it stands for Docker Hub and for ghcr.io.
pub(super) struct Larder {
    process: Process,
    /// The authority's certificate, if clients are to speak TLS.
    ca: Option<PathBuf>,
    /// What `larder cert` said, if it made the registry's certificate.
    certified: Option<String>,
    mirror: SocketAddr,
    registry: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    home: Scratch,
}

/// A tag may be served without asking for a second only: so a test that outlives it sees answers that were confirmed by
/// the upstream, and, when that is gone, answers that could not be.
const BRIEFLY: &str = "tag_ttl = \"1s\"";

impl Larder {
    pub(super) fn mirroring(upstream: &Registry) -> Self {
        Self::start(&upstream.url(), BRIEFLY, false, Own::None)
    }

    /// One whose upstream is gone, at an address of the test's choosing.
    pub(super) fn alone_at(mirror: SocketAddr, tls: bool) -> Self {
        Self::start_at(mirror, "http://127.0.0.1:1", BRIEFLY, tls, Own::None)
    }

    /// The same over TLS, for who shows a certificate of its authority.
    pub(super) fn guarded_at(mirror: SocketAddr) -> Self {
        let mut larder = Self::alone_at(mirror, true);
        let config = fs::read_to_string(&larder.config).unwrap();
        let guarded = config.replace("key.pem\" }", &format!("key.pem\", client_ca = {:?} }}", larder.ca()));
        assert_ne!(guarded, config);
        fs::write(&larder.config, guarded).unwrap();
        larder.restart();
        larder
    }

    /// A certificate that such a one lets in, and its key.
    pub(super) fn guest(&self) -> [String; 2] {
        ["guest.pem", "guest-key.pem"].map(|name| fs::read_to_string(self.home.join(name)).unwrap())
    }

    /// The same, with a certificate that nobody trusts before being told to.
    pub(super) fn mirroring_over_tls(upstream: &Registry) -> Self {
        Self::start(&upstream.url(), BRIEFLY, true, Own::None)
    }

    /// The same, with the address of the upstream or of what stands in front of it, and the lines of `[cache]`.
    pub(super) fn mirroring_at(upstream: &str, cache: &str) -> Self {
        Self::start(upstream, cache, false, Own::None)
    }

    /// The same with a registry beside it; `rules` are more lines of `[registry]`.
    pub(super) fn hosting(upstream: &Registry, rules: &str) -> Self {
        Self::start(&upstream.url(), BRIEFLY, false, Own::Plain(rules))
    }

    /// The same over TLS, with what `larder cert` made, at an address that no client takes for its own machine.
    pub(super) fn hosting_over_tls(upstream: &Registry, rules: &str) -> Self {
        Self::start(&upstream.url(), BRIEFLY, false, Own::OverTls(rules))
    }

    fn start(upstream: &str, cache: &str, tls: bool, registry: Own<'_>) -> Self {
        Self::start_at(private_address(), upstream, cache, tls, registry)
    }

    fn start_at(mirror: SocketAddr, upstream: &str, cache: &str, tls: bool, registry: Own<'_>) -> Self {
        let home = Scratch::new("mirror");
        let admin = private_address();
        let (address, rules, certified) = match registry {
            Own::None => (private_address(), None, None),
            Own::Plain(rules) => (private_address(), Some(rules.to_owned()), None),
            Own::OverTls(rules) => {
                let address = own_address();
                let [cert, key] = ["certs/server.pem", "certs/server-key.pem"].map(|name| home.join(name));
                let rules = format!("tls = {{ cert = {cert:?}, key = {key:?} }}\n{rules}");
                (address, Some(rules), Some(certify(address, &home)))
            }
        };
        let registry = address;
        let ca = tls.then(|| certificates(mirror, &home));
        let own = match &ca {
            Some(_) => format!("tls = {{ cert = {:?}, key = {:?} }}", home.join("cert.pem"), home.join("key.pem")),
            None => String::new(),
        };
        let rules = rules.map(|rules| rules.replace("HOME", home.path().to_str().unwrap()));
        let hosted = rules.map(|rules| format!("[registry]\nlisten = \"{registry}\"\n{rules}\n")).unwrap_or_default();
        let line = |name: &str| format!("{name}:{}\n", bcrypt::hash(format!("{name}-secret"), 4).unwrap());
        home.write("htpasswd", &(line("anna") + &line("bert")));
        let config = format!(
            "data_dir = {:?}\n\
             [mirror]\nlisten = \"{mirror}\"\n{own}\n\
             [admin]\nlisten = \"{admin}\"\n\
             [cache]\n{cache}\n\
             {hosted}\
             [[upstream]]\nname = \"docker.io\"\nurl = \"{upstream}\"\ndefault = true\n\
             [[upstream]]\nname = \"ghcr.io\"\nurl = \"{upstream}\"\n",
            home.join("data")
        );
        let config = home.write("larder.toml", &config);
        let process = serve(&config, admin, &home);
        Self { process, ca, certified, mirror, registry, admin, config, home }
    }

    /// Ends the server and starts it on the same data, upstream or no upstream.
    pub(super) fn restart(&mut self) {
        self.process.stop();
        self.process = serve(&self.config, self.admin, &self.home);
    }

    /// Where it listens for clients.
    pub(super) fn mirror(&self) -> SocketAddr {
        self.mirror
    }

    /// Where clients push.
    pub(super) fn registry(&self) -> SocketAddr {
        self.registry
    }

    /// What clients call it.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.is_tls() { "https" } else { "http" }, self.mirror)
    }

    /// The authority's certificate.
    pub(super) fn ca(&self) -> &Path {
        self.ca.as_deref().unwrap()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.ca.is_some()
    }

    pub(super) fn registry_is_tls(&self) -> bool {
        self.certified.is_some()
    }

    /// Puts the authority of the registry's certificate where `larder cert` says that those who look below `place` want
    /// it, on a machine whose `/` is `root`; gives where that is.
    pub(super) fn certify_at(&self, place: &str, root: &Path) -> PathBuf {
        let said = self.certified.as_deref().unwrap();
        let registry = self.registry.to_string();
        let mut paths = said.split_whitespace().filter(|word| word.starts_with(place) && word.contains(&registry));
        let path =
            root.join(paths.next().unwrap_or_else(|| panic!("nothing below {place}: {said}")).trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(self.home.join("certs/ca.pem"), &path).unwrap();
        path
    }

    /// `larder setup CLIENT --write` for this mirror, on a machine whose `/` is `root`.
    pub(super) fn set_up(&self, client: &str, root: &Path) {
        self.set_up_with(client, root, self.ca.as_deref());
    }

    /// The same, for somebody who forgot the authority's certificate.
    pub(super) fn set_up_without_ca(&self, client: &str, root: &Path) {
        self.set_up_with(client, root, None);
    }

    fn set_up_with(&self, client: &str, root: &Path, ca: Option<&Path>) {
        let mut command = command(env!("CARGO_BIN_EXE_larder"), self.home.path());
        command.args(["setup", client, "--mirror", &self.url()]);
        command.args(["--registry", "docker.io", "--registry", "ghcr.io", "--write", "--root"]).arg(root);
        if let Some(ca) = ca {
            command.arg("--ca").arg(ca);
        }
        run(&mut command);
    }

    /// How many blobs were pushed byte for byte: neither mounted nor found to be there.
    pub(super) fn uploaded(&self) -> u64 {
        self.metric("larder_requests_total{endpoint=\"upload\"", "method=\"PUT\"")
    }

    /// How many requests were answered with this outcome; any outcome if it is empty.
    pub(super) fn requests(&self, outcome: &str) -> u64 {
        self.metric("larder_requests_total{", &format!("outcome=\"{outcome}"))
    }

    /// Waits until so many blobs are being fetched.
    pub(super) fn until_fills(&self, n: u64) {
        wait_until("fills begin", Duration::from_secs(30), || self.metric("larder_fills_in_flight", "") >= n);
    }

    /// The sum of the series that begin with `name` and contain `label`.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let page = http::get(self.admin, "/metrics").unwrap();
        assert_eq!(page.status, 200);
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()).map(|count| count.parse::<u64>().unwrap()).sum()
    }
}

/// The registry beside the mirror: none, or one with these lines in `[registry]`.
#[derive(Clone, Copy)]
enum Own<'a> {
    None,
    Plain(&'a str),
    OverTls(&'a str),
}

/// `larder cert` for a server at `address`; what it prints.
fn certify(address: SocketAddr, home: &Scratch) -> String {
    let mut command = command(env!("CARGO_BIN_EXE_larder"), home.path());
    command.args(["cert", "--name", &address.ip().to_string(), "--port", &address.port().to_string()]);
    run(command.arg("--out").arg(home.join("certs")))
}

/// An authority's certificate, and in `home` the mirror's and a guest's with their keys.
fn certificates(mirror: SocketAddr, home: &Scratch) -> PathBuf {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ca = home.write("ca.pem", &authority.self_signed(&authority_key).unwrap().pem());
    let issuer = Issuer::new(authority, authority_key);
    let own = CertificateParams::new([mirror.ip().to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
    let guest_key = KeyPair::generate().unwrap();
    let guest = CertificateParams::new(["guest".to_owned()]).unwrap().signed_by(&guest_key, &issuer).unwrap();
    for (name, text) in [
        ("cert.pem", own.pem()),
        ("key.pem", key.serialize_pem()),
        ("guest.pem", guest.pem()),
        ("guest-key.pem", guest_key.serialize_pem()),
    ] {
        fs::write(home.join(name), text).unwrap();
    }
    ca
}

fn serve(config: &PathBuf, admin: SocketAddr, home: &Scratch) -> Process {
    let mut command = command(env!("CARGO_BIN_EXE_larder"), home.path());
    command.arg("serve").arg("--config").arg(config);
    let mut process = Process::spawn("larder", &mut command, home.join("log"));
    process.wait_until_ready(|_| http::get(admin, "/readyz").ok().filter(|answer| answer.status == 200));
    process
}
