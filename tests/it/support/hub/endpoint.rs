//! What a request to the hub is about. Never decides an answer.

use hyper::Method;

/// Which of Docker Hub's three services a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `registry-1.docker.io`
    Registry,
    /// `auth.docker.io`; a plain hub serves it on the registry's port.
    Token,
    /// `production.cloudflare.docker.com`
    Cdn,
}

/// What is asked for. Names are as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`
    Ping,
    /// `/token`
    Token,
    /// `/v2/<repo>/manifests/<reference>`
    Manifest(String, String),
    /// `/v2/<repo>/blobs/<digest>`
    Blob(String, String),
    /// A signed address on the CDN, for this digest.
    Cdn(String),
    /// `/v2/<repo>/tags/list`
    Tags(String),
    /// `/v2/<repo>/referrers/<digest>`
    Referrers(String, String),
    /// Anything else.
    Unknown,
}

impl Endpoint {
    /// Reads a path without its query.
    pub fn of(role: Role, path: &str) -> Endpoint {
        match role {
            Role::Token if path == "/token" => Endpoint::Token,
            Role::Token => Endpoint::Unknown,
            Role::Cdn => cdn(path).unwrap_or(Endpoint::Unknown),
            Role::Registry => registry(path).unwrap_or(Endpoint::Unknown),
        }
    }

    /// The repository, where the path names one.
    pub fn repo(&self) -> Option<&str> {
        match self {
            Endpoint::Manifest(repo, _)
            | Endpoint::Blob(repo, _)
            | Endpoint::Tags(repo)
            | Endpoint::Referrers(repo, _) => Some(repo),
            Endpoint::Ping | Endpoint::Token | Endpoint::Cdn(_) | Endpoint::Unknown => None,
        }
    }

    /// The tag or digest, where the path names one.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Endpoint::Manifest(_, reference)
            | Endpoint::Blob(_, reference)
            | Endpoint::Cdn(reference)
            | Endpoint::Referrers(_, reference) => Some(reference),
            Endpoint::Ping | Endpoint::Token | Endpoint::Tags(_) | Endpoint::Unknown => None,
        }
    }
}

/// The path of a blob on the CDN.
pub fn cdn_path(hex: &str) -> String {
    format!("/registry-v2/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2])
}

fn cdn(path: &str) -> Option<Endpoint> {
    let hex = path.strip_suffix("/data")?.rsplit('/').next()?;
    (hex.len() == 64 && path == cdn_path(hex)).then(|| Endpoint::Cdn(format!("sha256:{hex}")))
}

fn registry(path: &str) -> Option<Endpoint> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(Endpoint::Ping);
    }
    if let Some(repo) = rest.strip_suffix("/tags/list") {
        return Some(Endpoint::Tags(repo.into()));
    }
    // From the right: a repository may be called "manifests".
    let (front, reference) = rest.rsplit_once('/')?;
    let (repo, kind) = front.rsplit_once('/')?;
    let (repo, reference) = (repo.to_owned(), reference.to_owned());
    match kind {
        "manifests" => Some(Endpoint::Manifest(repo, reference)),
        "blobs" => Some(Endpoint::Blob(repo, reference)),
        "referrers" => Some(Endpoint::Referrers(repo, reference)),
        _ => None,
    }
}

/// A kind of request, to count it or to make it fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/v2/`
    Ping,
    /// The token service.
    Token,
    /// Any request for a manifest.
    Manifest,
    /// GET or HEAD of a manifest by tag.
    ManifestTag,
    /// GET or HEAD of a manifest by digest.
    ManifestDigest,
    /// HEAD of a manifest, by tag or by digest.
    ManifestHead,
    /// GET of a manifest, by tag or by digest: what the rate limit counts.
    ManifestGet,
    /// A blob's address on the registry, which redirects.
    Blob,
    /// A blob's address on the CDN, which has the bytes.
    Cdn,
    /// The list of tags.
    Tags,
    /// The list of referrers.
    Referrers,
    /// Everything on all hosts.
    Everything,
}

impl Target {
    /// Whether a request is of this kind.
    pub fn covers(self, method: &Method, endpoint: &Endpoint) -> bool {
        match (self, endpoint) {
            (Target::Everything, _)
            | (Target::Ping, Endpoint::Ping)
            | (Target::Token, Endpoint::Token)
            | (Target::Manifest, Endpoint::Manifest(..))
            | (Target::Blob, Endpoint::Blob(..))
            | (Target::Cdn, Endpoint::Cdn(_))
            | (Target::Tags, Endpoint::Tags(_))
            | (Target::Referrers, Endpoint::Referrers(..)) => true,
            (Target::ManifestTag, Endpoint::Manifest(_, reference)) => !reference.contains(':'),
            (Target::ManifestDigest, Endpoint::Manifest(_, reference)) => reference.contains(':'),
            (Target::ManifestHead, Endpoint::Manifest(..)) => *method == Method::HEAD,
            (Target::ManifestGet, Endpoint::Manifest(..)) => *method == Method::GET,
            _ => false,
        }
    }
}
