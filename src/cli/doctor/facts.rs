//! What was found on a machine, and nothing of what it means. Gathered in `gather`, judged in `diagnosis`.

use std::path::PathBuf;

use crate::cli::mirror_url::MirrorUrl;

/// All of it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) mirror: MirrorFacts,
    pub(super) engines: Vec<Engine>,
    /// The one engine that was asked for, if one was.
    pub(super) only: Option<Kind>,
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Docker.
    Docker,
    /// containerd: Kubernetes, nerdctl, ctr.
    Containerd,
    /// Podman: also Buildah, skopeo and CRI-O.
    Podman,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Kind::Docker => "docker",
            Kind::Containerd => "containerd",
            Kind::Podman => "podman",
        }
    }
}

/// The mirror as this machine reaches it.
#[derive(Debug)]
pub(super) struct MirrorFacts {
    pub(super) url: MirrorUrl,
    /// Who says that this is the mirror: `--mirror`, or an engine's configuration.
    pub(super) named_by: String,
    pub(super) reach: Reach,
    /// Our time minus its, in seconds.
    pub(super) ahead_s: Option<i64>,
    /// Whether it lets in only who shows a certificate of its `client_ca`.
    pub(super) asks_certificate: bool,
    /// What this machine's own authorities say of its certificate; `None` without TLS.
    pub(super) certificate: Option<Result<(), Distrust>>,
    /// Where on the same host a mirror answers, if it does not here.
    pub(super) elsewhere: Vec<MirrorUrl>,
}

/// What came of asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// A Larder that knows probes.
    Larder,
    /// A registry that does not.
    Registry,
    /// It wants a login, which a mirror must not.
    Challenges,
    /// Something else answers over HTTP.
    Status(u16),
    /// `http://` was asked, and TLS is spoken.
    SpeaksTls,
    /// `https://` was asked, and TLS is not spoken.
    SpeaksPlain,
    /// It wants to see a certificate of ours, and no engine has one that it takes.
    WantsCertificate,
    /// Its name has no address.
    NoAddress(String),
    /// Nobody listens.
    Refused,
    /// Nothing comes back.
    Silent,
    /// The rest.
    Broken(String),
}

/// Why a certificate does not prove who shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Distrust {
    UnknownAuthority,
    Expired,
    NotYetValid,
    WrongName,
    Other(String),
}

/// A file that an engine reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConfigFile<T> {
    Missing,
    /// It is there, and cannot be used: why.
    Broken(String),
    Says(T),
}

/// A file with an authority's certificate, in a place that an engine may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) path: PathBuf,
    /// Whether it vouches for the mirror's certificate.
    pub(super) vouches: bool,
}

/// A `hosts.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    pub(super) path: PathBuf,
    pub(super) hosts: Vec<Host>,
}

/// One of its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) url: String,
    /// Whether manifests and blobs may be asked of it.
    pub(super) serves_pulls: bool,
    pub(super) skip_verify: bool,
    pub(super) ca: Vec<PathBuf>,
    /// Certificates of its own that it shows there, each with its key.
    pub(super) client: Vec<(PathBuf, PathBuf)>,
}

/// A certificate that an engine shows to a mirror that asks for one, with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passport {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Whether the mirror let us in with it.
    pub(super) lets_in: bool,
}

/// The variables that an engine runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ProxyVariables {
    pub(super) http: String,
    pub(super) https: String,
    pub(super) not_for: String,
}

/// One engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) particulars: Particulars,
    /// `None`: they could not be read.
    pub(super) proxies: Option<ProxyVariables>,
    /// Looked for only where the mirror asks for one.
    pub(super) passports: Vec<Passport>,
    pub(super) probe: Probe,
}

/// What is different for each engine.
#[derive(Debug)]
pub(super) enum Particulars {
    Docker(Docker),
    Containerd(Containerd),
    Podman(Podman),
}

impl Engine {
    pub(super) fn kind(&self) -> Kind {
        match self.particulars {
            Particulars::Docker(_) => Kind::Docker,
            Particulars::Containerd(_) => Kind::Containerd,
            Particulars::Podman(_) => Kind::Podman,
        }
    }
}

#[derive(Debug)]
pub(super) struct Docker {
    pub(super) socket: PathBuf,
    pub(super) files: DockerFiles,
    /// What the daemon says of itself, or why it says nothing.
    pub(super) daemon: Result<Daemon, NoDaemon>,
    pub(super) daemon_json: ConfigFile<Vec<String>>,
    /// `certs.d/docker.io/hosts.toml`.
    pub(super) hub_hosts: ConfigFile<Hosts>,
    /// In the folder of the mirror's name.
    pub(super) by_mirror: Vec<Authority>,
    /// In the folder of docker.io.
    pub(super) by_registry: Vec<Authority>,
}

/// Where a daemon has its configuration. A rootless one has its user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DockerFiles {
    pub(super) daemon_json: PathBuf,
    /// Certificates, and with the containerd image store the `hosts.toml` of each registry.
    pub(super) certs: PathBuf,
    pub(super) is_rootless: bool,
}

/// `GET /info`.
#[derive(Debug, Clone, Default)]
pub(super) struct Daemon {
    pub(super) version: String,
    /// Whether images are kept by containerd: then mirrors work differently (protocol.md, section 3).
    pub(super) containerd_store: bool,
    pub(super) mirrors: Vec<String>,
    pub(super) is_rootless: bool,
}

/// Why there is no daemon to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoDaemon {
    NotRunning,
    NotAllowed,
    Odd(String),
}

#[derive(Debug)]
pub(super) struct Containerd {
    pub(super) address: PathBuf,
    pub(super) version: String,
    /// Who pulls for the probe; `None`: there is no client.
    pub(super) client: Option<Puller>,
    pub(super) config: ConfigFile<CriConfig>,
    /// The folder that holds a `hosts.toml` for each registry.
    pub(super) folder: PathBuf,
    /// That of docker.io, or `_default`.
    pub(super) hosts: ConfigFile<Hosts>,
    /// Those that its hosts name.
    pub(super) named: Vec<Authority>,
}

/// Who asks containerd for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Puller {
    /// As Kubernetes does: by way of the CRI plugin.
    Crictl,
    /// With the same files, past the CRI plugin.
    Ctr,
}

/// What the CRI plugin is told of registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CriConfig {
    pub(super) is_disabled: bool,
    pub(super) config_path: String,
    /// `registry.mirrors` or `registry.configs`, which exclude `config_path`.
    pub(super) has_old_form: bool,
}

#[derive(Debug)]
pub(super) struct Podman {
    /// What `podman info` says, or its complaint.
    pub(super) info: Result<PodmanInfo, String>,
    /// This user's own `registries.conf`, if there is one: then those of `/etc` count for nothing.
    pub(super) own_conf: Option<PathBuf>,
    /// The one folder of the mirror's name in which it looks for certificates.
    pub(super) folder: PathBuf,
    /// In its places for the mirror's name.
    pub(super) by_mirror: Vec<Authority>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct PodmanInfo {
    pub(super) version: String,
    pub(super) storage: String,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<PodmanMirror>,
}

/// A `[[registry.mirror]]` of docker.io.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodmanMirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    /// `all`, `digest-only` or `tag-only`; empty where it is not said.
    pub(super) pull_from: String,
}

/// What came of the pull that we asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// The engine has no mirror to ask: what is wrong is known already.
    Pointless,
    /// There was no use in one: why.
    NotTried(&'static str),
    /// It arrived.
    Arrived {
        agent: String,
        /// Whether a proxy stood in between that did not stand between us and the mirror.
        via_proxy: bool,
    },
    /// The engine was asked, and the mirror saw nothing: the engine's last words.
    Lost(String),
    /// The mirror did not say.
    Unknown(String),
}
