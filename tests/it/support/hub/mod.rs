//! A fake Docker Hub: registry, token service and CDN on loopback, with faults that a test scripts.
//!
//! It behaves as `protocol.md`, section 2, says, unless a [`Fault`] is in force; it does nothing by the clock but
//! [`Fault::Slow`]. It never talks to anyone by itself. It runs on the test's runtime and ends with the [`Hub`].
//! When a rule has met requests and changed nothing, dropping the hub panics: such a test proves nothing.

mod cdn;
mod content;
mod endpoint;
mod fault;
mod play;
mod port;
mod registry;
mod reply;
mod seen;
mod serve;
mod tls;
mod token;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use larder::oci::Digest;
use tempfile::TempDir;

pub use endpoint::{Role, Target};
pub use fault::{Fault, Plan, Rule, Selects};
pub use port::PortState;
pub use seen::Seen;
pub use serve::Settings;

use self::content::Content;
use self::port::{Certificates, Port};
use self::serve::{Names, Shared};
use self::tls::Authority;
use super::client::PATIENCE;
use super::image::Image;

/// Another loopback address than the registry's: what must not cross hosts must not cross these either.
const CDN_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The fake Docker Hub.
pub struct Hub {
    shared: Arc<Shared>,
    ports: Vec<Port>,
    authority: Option<(Authority, TempDir)>,
}

impl Hub {
    /// Over plain HTTP: the registry, with its token service, on 127.0.0.1, the CDN on 127.0.0.2.
    pub async fn plain() -> Hub {
        let ports = vec![Port::reserve(Role::Registry, LOCALHOST, None), Port::reserve(Role::Cdn, CDN_IP, None)];
        let registry = format!("http://{}", ports[0].addr());
        let names = Names { realm: format!("{registry}/token"), cdn: format!("http://{}", ports[1].addr()), registry };
        Hub::start(names, ports, None).await
    }

    /// Over TLS: three hosts below `localhost`, on three ports of 127.0.0.1.
    pub async fn tls() -> Hub {
        Hub::tls_at(["registry-1.hub.localhost", "auth.hub.localhost", "cdn.localhost"]).await
    }

    /// Over TLS: three ports of 127.0.0.1, without names, for who asks another resolver than ours.
    pub async fn tls_by_address() -> Hub {
        Hub::tls_at(["127.0.0.1"; 3]).await
    }

    async fn tls_at(hosts: [&str; 3]) -> Hub {
        let authority = Authority::new();
        let mut names = hosts.map(String::from).to_vec();
        names.push("127.0.0.1".into());
        let certificates =
            Certificates { trusted: authority.acceptor(&names), untrusted: Authority::new().acceptor(&names) };
        let ports: Vec<Port> = [Role::Registry, Role::Token, Role::Cdn]
            .map(|role| Port::reserve(role, LOCALHOST, Some(certificates.clone())))
            .into();
        let url = |n: usize| format!("https://{}:{}", names[n], ports[n].addr().port());
        let names = Names { registry: url(0), realm: format!("{}/token", url(1)), cdn: url(2) };
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), &authority.ca_pem).unwrap();
        Hub::start(names, ports, Some((authority, directory))).await
    }

    async fn start(names: Names, ports: Vec<Port>, authority: Option<(Authority, TempDir)>) -> Hub {
        let hub = Hub { shared: Arc::new(Shared::new(names)), ports, authority };
        hub.start_again().await;
        hub
    }

    /// The upstream's URL, without a slash at its end.
    pub fn registry_url(&self) -> &str {
        &self.shared.names.registry
    }

    /// The token service's URL, with its path.
    pub fn realm(&self) -> &str {
        &self.shared.names.realm
    }

    /// The CDN's URL, without a path.
    pub fn cdn_url(&self) -> &str {
        &self.shared.names.cdn
    }

    /// Where a host listens. A plain hub's token service is on the registry's port.
    pub fn addr(&self, role: Role) -> SocketAddr {
        let shared = role == Role::Token && self.authority.is_none();
        self.port(if shared { Role::Registry } else { role }).addr()
    }

    /// The name in a host's URL.
    pub fn name(&self, role: Role) -> &str {
        let url = match role {
            Role::Registry => self.registry_url(),
            Role::Token => self.realm(),
            Role::Cdn => self.cdn_url(),
        };
        url.split(['/', ':']).nth(3).unwrap()
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.authority.is_some()
    }

    /// The authority's certificate. Panics on a plain hub.
    pub fn ca_pem(&self) -> &str {
        &self.authority.as_ref().unwrap().0.ca_pem
    }

    /// The file with the authority's certificate. Panics on a plain hub.
    pub fn ca_file(&self) -> PathBuf {
        self.authority.as_ref().unwrap().1.path().join("ca.pem")
    }

    // === Content ===

    /// Adds a blob to a repository, which is made if need be.
    pub fn add_blob(&self, repo: &str, blob: impl Into<Bytes>) -> Digest {
        self.content().add_blob(repo, &blob.into())
    }

    /// Adds an image, with everything below it, under a tag.
    pub fn push(&self, repo: &str, tag: &str, image: &Image) -> Digest {
        let digest = self.push_untagged(repo, image);
        self.retag(repo, tag, digest);
        digest
    }

    /// Adds an image, with everything below it.
    pub fn push_untagged(&self, repo: &str, image: &Image) -> Digest {
        self.content().add_image(repo, image)
    }

    /// Lets a tag mean something else.
    pub fn retag(&self, repo: &str, tag: &str, digest: Digest) {
        self.content().repo(repo).tags.insert(tag.into(), digest);
    }

    /// Removes a tag; the manifest stays.
    pub fn remove_tag(&self, repo: &str, tag: &str) {
        self.content().repo(repo).tags.remove(tag).unwrap();
    }

    /// Removes a manifest; tags that mean it are left dangling.
    pub fn remove_manifest(&self, repo: &str, digest: Digest) {
        self.content().repo(repo).manifests.remove(&digest).unwrap();
    }

    /// Removes a blob from a repository.
    pub fn remove_blob(&self, repo: &str, digest: Digest) {
        assert!(self.content().repo(repo).blobs.remove(&digest), "{repo} has no {digest}");
    }

    /// Removes a repository. Tokens for it are good for nothing then: 404, or 401 with a new token.
    pub fn remove_repo(&self, repo: &str) {
        self.content().repos.remove(repo).unwrap();
    }

    /// Only accounts can read it from now on.
    pub fn make_private(&self, repo: &str) {
        self.content().repo(repo).private = true;
        self.expire_tokens();
    }

    /// Changes how the hub behaves.
    pub fn settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.settings.lock().unwrap());
    }

    /// No token that has been issued is good any more.
    pub fn expire_tokens(&self) {
        self.shared.tokens.lock().unwrap().clear();
    }

    /// No CDN address that has been handed out is good any more.
    pub fn expire_signatures(&self) {
        self.shared.signatures.lock().unwrap().clear();
    }

    // === Faults ===

    /// Puts a fault in force, for a [`Target`] or for the requests that a closure picks. Several that apply to one
    /// request all do their part.
    pub fn fault(&self, requests: impl Selects, plan: impl Into<Plan>) -> Rule {
        self.shared.rules.add(requests.filter(), plan.into())
    }

    /// Lifts all faults, and lets go of all answers that they hold. Ports stay as they are.
    pub fn heal(&self) {
        self.shared.rules.lift_all();
    }

    /// Changes what a host's port does; everything connected to it has been cut off when this returns.
    pub async fn port_state(&self, role: Role, state: PortState) {
        self.port(role).set(state, &self.shared).await;
    }

    /// All ports refuse; everything connected has been cut off when this returns.
    pub async fn stop(&self) {
        for port in &self.ports {
            port.set(PortState::Refusing, &self.shared).await;
        }
    }

    /// All ports are open again, at the same addresses.
    pub async fn start_again(&self) {
        for port in &self.ports {
            port.set(PortState::Open, &self.shared).await;
        }
    }

    // === What has been asked ===

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.log.all()
    }

    /// How many requests there were: of a [`Target`], or that a closure picks.
    pub fn count(&self, requests: impl Selects) -> usize {
        let filter = requests.filter();
        self.requests().iter().filter(|seen| filter(seen)).count()
    }

    /// Bytes of bodies handed to connections for this blob or manifest, on all hosts.
    pub fn bytes_sent(&self, digest: &Digest) -> u64 {
        self.requests().iter().filter(|seen| seen.is_for(digest)).map(|seen| seen.sent).sum()
    }

    /// Waits until there were so many requests, or, with a closure that looks at the answer, answers.
    pub async fn until_count(&self, n: usize, requests: impl Selects) {
        let filter = requests.filter();
        let mut changes = self.shared.log.changes();
        let wait = async {
            while self.requests().iter().filter(|seen| filter(seen)).count() < n {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "waited in vain for {n} of {:#?}", self.requests());
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        self.shared.log.clear();
    }

    /// How many connections there were, to all hosts.
    pub fn connections(&self) -> u64 {
        self.shared.connections()
    }

    /// How many connections to a host are open now.
    pub fn open_connections(&self, role: Role) -> usize {
        *self.port(role).open().borrow()
    }

    /// Waits until exactly so many connections to a host are open.
    pub async fn until_open(&self, role: Role, n: usize) {
        let mut open = self.port(role).open();
        let waited = tokio::time::timeout(PATIENCE, open.wait_for(|open| *open == n)).await;
        assert!(waited.is_ok(), "{} connections to {role:?} are open, not {n}", self.open_connections(role));
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap()
    }

    fn port(&self, role: Role) -> &Port {
        let port = self.ports.iter().find(|port| port.role() == role);
        port.unwrap_or_else(|| panic!("a plain hub has no port for {role:?}: it is the registry's"))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let vacuous = self.shared.rules.vacuous();
        assert!(vacuous.is_empty() || std::thread::panicking(), "met requests and changed nothing: {vacuous:#?}");
    }
}
