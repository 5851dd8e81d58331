//! The shape of the configuration: every section, every key, every default.
//!
//! The same types are what is read, what the program is built from, and what `check-config` writes out. Never reads a
//! file or the environment; what a value may be is said where its type is.

use serde::{Deserialize, Serialize};

use super::choices::{Anonymous, OnDeleted, Proxy};
use super::quantities::{Bandwidth, Count, Every, Size, Timeout, Ttl, Verify};
use super::values::{BaseUrl, FilePath, Listen, Pattern, UpstreamName, UserName};
use crate::secret::Secret;

/// The whole configuration, valid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: FilePath,
    /// The mirror that clients pull through.
    pub mirror: Mirror,
    /// The private registry; none: there is no such listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<Registry>,
    /// Metrics, health and the page for people.
    pub admin: Admin,
    /// What is kept, and for how long it is believed.
    pub cache: Cache,
    /// The registries that are mirrored; exactly one is the default.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<Upstream>,
    /// The proxies that the environment names, for upstreams that are reached as it says.
    #[serde(skip)]
    pub proxies: ProxyVariables,
}

/// What the environment says about proxies. Their URLs may have accounts in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProxyVariables {
    /// `HTTP_PROXY`.
    pub http: Option<Secret>,
    /// `HTTPS_PROXY`.
    pub https: Option<Secret>,
    /// `NO_PROXY`.
    pub not_for: String,
}

/// `[mirror]`: anonymous and read-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// Where clients connect to.
    pub listen: Listen,
    /// The certificate to serve TLS with; none: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// A certificate and its key, reloaded when the files change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and those between it and the root.
    pub cert: FilePath,
    /// PEM file of the private key.
    pub key: FilePath,
    /// PEM file of the CAs by one of which a client's certificate must be signed; none: clients need not have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<FilePath>,
}

/// `[registry]`: the team's own images. Its own address, because `docker login` wants a challenge, and a mirror must
/// not give one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Where clients connect to.
    pub listen: Listen,
    /// The certificate to serve TLS with; none: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How clients reach it, if not by what their requests say; none: by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<BaseUrl>,
    /// The file of accounts, with bcrypt hashes; none: nobody has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<FilePath>,
    /// What `*` in a rule gives to someone without an account.
    pub anonymous: Anonymous,
    /// Which names are hosted here, and who may do what with them. They never come from an upstream.
    #[serde(rename = "repository")]
    pub repositories: Vec<RepositoryRule>,
}

/// `[[registry.repository]]`: the rule for the repositories whose names a pattern covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryRule {
    /// The names.
    pub pattern: Pattern,
    /// Tags that, once pushed, keep their meaning.
    #[serde(default)]
    pub immutable_tags: Vec<Pattern>,
    /// Who may pull.
    #[serde(default = "anyone")]
    pub pull: Vec<UserName>,
    /// Who may push.
    #[serde(default)]
    pub push: Vec<UserName>,
    /// Who may delete.
    #[serde(default)]
    pub delete: Vec<UserName>,
    /// Whether the mirror's address gives them to anyone, too.
    #[serde(default)]
    pub mirror: bool,
}

/// `[admin]`: not for clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where Prometheus and operators connect to.
    pub listen: Listen,
    /// The file that the token was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<FilePath>,
    /// What a request that changes something must show; none: it must come from this machine.
    #[serde(skip)]
    pub token: Option<Secret>,
}

/// `[cache]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Hard cap on the disk that cached blobs use, in bytes.
    pub max_size: Size,
    /// Bytes of the file system to leave free; below it, blobs stream through without being kept.
    pub min_free: Size,
    /// How long a tag is served without asking upstream.
    pub tag_ttl: Ttl,
    /// How long a client may wait for that question when a copy is at hand.
    pub revalidate_timeout: Timeout,
    /// How long "there is no such thing" is believed.
    pub negative_ttl: Ttl,
    /// Whether attestation manifests of a cached index are fetched in the background.
    pub complete_indexes: bool,
    /// How often the bytes of blobs that are sent are checked again.
    pub verify: Verify,
    /// How often everything at rest is read and checked.
    pub scrub: Every,
    /// How fast it is read for that.
    pub scrub_rate: Bandwidth,
    /// Images (`name:tag`) that are never evicted, and kept complete and fresh.
    pub pin: Vec<Pattern>,
}

/// `[[upstream]]`: a registry that is mirrored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// What clients call it: `?ns=`, or the first component of a path.
    pub name: UpstreamName,
    /// Where it is; for any but Docker Hub, `https://` and its name unless said otherwise.
    pub url: BaseUrl,
    /// Asked in this order when `url` is down, limits the rate or lacks the image.
    pub fallback: Vec<BaseUrl>,
    /// The account there; none: anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<UserName>,
    /// The file that the password was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<FilePath>,
    /// The account's password. There is one exactly when there is a `username`.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// More accounts there, used in this order when those before them have nothing to spare.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Credential>,
    /// Repositories that clients may pull.
    pub allow: Vec<Pattern>,
    /// Repositories that they may not pull all the same.
    pub deny: Vec<Pattern>,
    /// Whether names without a known prefix or `ns` go here.
    pub default: bool,
    /// PEM file of certificates to trust for this upstream besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<FilePath>,
    /// How long a connection may take to come about.
    pub connect_timeout: Timeout,
    /// How long the head of an answer may take.
    pub header_timeout: Timeout,
    /// How long a body may bring no byte.
    pub stall_timeout: Timeout,
    /// Connections at one time.
    pub max_connections: Count<1, 4096>,
    /// Range requests side by side for one large blob; 1: one request, no ranges.
    pub parallel: Count<1, 64>,
    /// Bytes per second, over all connections.
    pub bandwidth: Bandwidth,
    /// How it is reached.
    pub proxy: Proxy,
    /// Repositories that only our account can read, and that clients may have all the same.
    pub private: Vec<Pattern>,
    /// Pulls of the rate limit that are kept for clients who wait.
    pub reserve: Count<0, 1_000_000>,
    /// What becomes of an image we hold when this upstream says that it is gone.
    pub on_deleted: OnDeleted,
}

/// One of `credentials`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The account.
    pub username: UserName,
    /// The file that the password was read from.
    pub password_file: FilePath,
    /// The account's password, which is always there once the configuration is.
    #[serde(skip)]
    pub password: Option<Secret>,
}

impl Upstream {
    /// All accounts there, in the order in which they are used.
    pub fn accounts(&self) -> impl Iterator<Item = (&UserName, &Secret)> {
        let first = self.username.as_ref().zip(self.password.as_ref());
        let others = self.credentials.iter().filter_map(|one| Some((&one.username, one.password.as_ref()?)));
        first.into_iter().chain(others)
    }
}

/// A constant of this file, which its own rules must accept; a test makes every default.
fn constant<T>(parsed: Option<T>) -> T {
    parsed.unwrap_or_else(|| unreachable!("a default that breaks its own rule"))
}

fn anyone() -> Vec<UserName> {
    vec![constant(UserName::parse("*"))]
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: constant(FilePath::parse("./larder-data")),
            mirror: Mirror::default(),
            registry: None,
            admin: Admin::default(),
            cache: Cache::default(),
            upstreams: vec![Upstream::default()],
            proxies: ProxyVariables::default(),
        }
    }
}

impl Default for Mirror {
    fn default() -> Mirror {
        Mirror { listen: Listen::loopback(5000), tls: None }
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            listen: Listen::loopback(5001),
            tls: None,
            public_url: None,
            htpasswd: None,
            anonymous: Anonymous::None,
            repositories: Vec::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: Listen::loopback(5080), token_file: None, token: None }
    }
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            max_size: Size::gibibytes(100),
            min_free: Size::gibibytes(2),
            tag_ttl: Ttl::seconds(300),
            revalidate_timeout: Timeout::seconds(1),
            negative_ttl: Ttl::seconds(30),
            complete_indexes: true,
            verify: Verify::After(Ttl::seconds(15 * 60)),
            scrub: Every::Each(Ttl::seconds(7 * 86_400)),
            scrub_rate: Bandwidth::PerSecond(Size::mebibytes(32)),
            pin: Vec::new(),
        }
    }
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            name: constant(UpstreamName::parse("docker.io")),
            url: constant(BaseUrl::parse("https://registry-1.docker.io")),
            fallback: Vec::new(),
            username: None,
            password_file: None,
            password: None,
            credentials: Vec::new(),
            allow: vec![constant(Pattern::parse("**"))],
            deny: Vec::new(),
            default: true,
            ca: None,
            connect_timeout: Timeout::seconds(5),
            header_timeout: Timeout::seconds(10),
            stall_timeout: Timeout::seconds(30),
            max_connections: Count::new(16),
            parallel: Count::new(4),
            bandwidth: Bandwidth::Unlimited,
            proxy: Proxy::Env,
            private: Vec::new(),
            reserve: Count::new(10),
            on_deleted: OnDeleted::Keep,
        }
    }
}
