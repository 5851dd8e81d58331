//! What a request asks for: its path and query, parsed once into one typed value. No string passes this line.
//!
//! `/v2/…` is read from the right, because a repository's name may itself contain `manifests`, `blobs` or `tags`. Pure;
//! never looks at headers, and never normalises: what is not written as the grammar says is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::nonce::Nonce;
use crate::oci::{Algorithm, Digest, DigestError, NameError, Reference, RepoName, Tag};
use crate::storage::UploadId;

/// What a request below `/v2/` is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog(Page),
    /// `/v2/_larder/probe/<nonce>`
    Probe(Nonce),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepoName, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepoName, Digest),
    /// `/v2/<name>/blobs/uploads/`: to begin one
    Uploads(RepoName, Begin),
    /// `/v2/<name>/blobs/uploads/<id>`, with the digest that ends it
    Upload(RepoName, UploadId, Option<Digest>),
    /// `/v2/<name>/tags/list`
    Tags(RepoName, Page),
    /// `/v2/<name>/referrers/<digest>`, with which of them are wanted
    Referrers(RepoName, Digest, Wanted),
}

/// Which referrers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this artifact type only.
    pub artifact_type: Option<String>,
    /// Those after this one.
    pub last: Option<Digest>,
}

/// How an upload is to begin, or to be spared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// The body is all of this blob.
    pub digest: Option<Digest>,
    /// This blob may be here already.
    pub mount: Option<Digest>,
    /// In this repository.
    pub from: Option<RepoName>,
    /// The algorithm of the digest that will end it.
    pub algorithm: Option<Algorithm>,
}

/// Which part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Most entries.
    pub n: Option<usize>,
    /// The entry before the first one; need not exist.
    pub last: Option<String>,
}

/// A parsed target: the endpoint, and which registry the client says it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// `?ns=`
    pub ns: Option<String>,
    /// `?tag=`: what a manifest that is pushed by digest is to be called, too.
    pub tags: Vec<Tag>,
}

/// Why a path or query means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Not below `/v2/`, or no endpoint there.
    #[error("no such endpoint: this is an OCI registry, its addresses begin with /v2/")]
    NotFound,
    /// The repository's name.
    #[error("{0}")]
    Name(NameError),
    /// The tag or digest in the place of a manifest's reference.
    #[error("{0}")]
    Reference(NameError),
    /// The digest.
    #[error("{0}")]
    Digest(DigestError),
    /// What stands where the name of an upload belongs.
    #[error("there is no such upload: take its address from the Location that began it")]
    Upload,
    /// More tags than are taken at once.
    #[error("at most {MAX_TAGS} tags in one request")]
    TooManyTags,
    /// `n` or `last`.
    #[error("n must be a number of entries, and last the text of one")]
    Page,
    /// Percent signs that encode nothing, or not text.
    #[error("the address is not valid percent-encoded text")]
    Encoding,
}

/// Most `tag` parameters in one request; the specification wants 10 at least.
pub const MAX_TAGS: usize = 100;

impl Endpoint {
    /// The endpoint's name in logs and metrics; one of a closed set.
    pub fn name(&self) -> &'static str {
        match self {
            Endpoint::Base => "base",
            Endpoint::Catalog(_) => "catalog",
            Endpoint::Probe(_) => "probe",
            Endpoint::Manifest(..) => "manifest",
            Endpoint::Blob(..) => "blob",
            Endpoint::Uploads(..) | Endpoint::Upload(..) => "upload",
            Endpoint::Tags(..) => "tags",
            Endpoint::Referrers(..) => "referrers",
        }
    }

    /// The repository that it is about, if it is about one.
    pub fn repository(&self) -> Option<&RepoName> {
        match self {
            Endpoint::Base | Endpoint::Catalog(_) | Endpoint::Probe(_) => None,
            Endpoint::Manifest(name, _)
            | Endpoint::Blob(name, _)
            | Endpoint::Uploads(name, _)
            | Endpoint::Upload(name, ..)
            | Endpoint::Tags(name, _)
            | Endpoint::Referrers(name, ..) => Some(name),
        }
    }
}

impl Target {
    /// Parses a request's path and query, both as they came.
    ///
    /// # Errors
    /// They name no endpoint, or something that cannot exist.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Target, TargetError> {
        let query = Query::parse(query.unwrap_or_default())?;
        let endpoint = endpoint(path, &query)?;
        let tags = query.tags.iter().map(|tag| tag.parse().map_err(TargetError::Reference));
        let tags = tags.collect::<Result<Vec<Tag>, TargetError>>()?;
        Ok(Target { endpoint, ns: query.ns, tags })
    }
}

fn endpoint(path: &str, query: &Query) -> Result<Endpoint, TargetError> {
    let rest = match path {
        "/v2" | "/v2/" => return Ok(Endpoint::Base),
        _ => path.strip_prefix("/v2/").ok_or(TargetError::NotFound)?,
    };
    if rest == "_catalog" {
        return Ok(Endpoint::Catalog(query.page()?));
    }
    if let Some(nonce) = rest.strip_prefix("_larder/probe/") {
        return Nonce::parse(nonce).map(Endpoint::Probe).ok_or(TargetError::NotFound);
    }
    let (rest, last) = rest.rsplit_once('/').ok_or(TargetError::NotFound)?;
    let (name, kind) = rest.rsplit_once('/').ok_or(TargetError::NotFound)?;
    let parse_name = |name| segment_text(name)?.parse::<RepoName>().map_err(TargetError::Name);
    let name_of_upload = name.strip_suffix("/blobs").filter(|_| kind == "uploads");
    let name = || parse_name(name);
    let last = segment_text(last)?;
    if let Some(name) = name_of_upload {
        return match last.as_ref() {
            "" => Ok(Endpoint::Uploads(parse_name(name)?, query.begin()?)),
            id => {
                let digest = query.digest.as_deref().map(parse_digest).transpose()?;
                Ok(Endpoint::Upload(parse_name(name)?, id.parse().map_err(|()| TargetError::Upload)?, digest))
            }
        };
    }
    match (kind, last.as_ref()) {
        ("blobs", "uploads") => Ok(Endpoint::Uploads(name()?, query.begin()?)),
        ("manifests", reference) => Ok(Endpoint::Manifest(name()?, reference.parse().map_err(TargetError::Reference)?)),
        ("blobs", digest) => Ok(Endpoint::Blob(name()?, digest.parse().map_err(TargetError::Digest)?)),
        ("tags", "list") => Ok(Endpoint::Tags(name()?, query.page()?)),
        ("referrers", digest) => {
            let digest = digest.parse().map_err(TargetError::Digest)?;
            let last = query.last.as_deref().and_then(|last| last.parse().ok());
            Ok(Endpoint::Referrers(name()?, digest, Wanted { artifact_type: query.artifact_type.clone(), last }))
        }
        _ => Err(TargetError::NotFound),
    }
}

/// Clients may encode the colon of a digest. An encoded slash would change how the path divides, so it is refused.
fn segment_text(text: &str) -> Result<Cow<'_, str>, TargetError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let decoded = decode(text)?;
    if decoded.matches('/').count() != text.matches('/').count() || decoded.contains('%') {
        return Err(TargetError::Encoding);
    }
    Ok(Cow::Owned(decoded))
}

fn decode(text: &str) -> Result<String, TargetError> {
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| TargetError::Encoding)
}

fn parse_digest(text: &str) -> Result<Digest, TargetError> {
    text.parse().map_err(TargetError::Digest)
}

#[derive(Default)]
struct Query {
    ns: Option<String>,
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
    digest_algorithm: Option<String>,
    tags: Vec<String>,
    n: Option<String>,
    last: Option<String>,
    artifact_type: Option<String>,
}

impl Query {
    /// Parameters that mean nothing here are ignored, as the specification wants. Of one given twice the first counts.
    fn parse(text: &str) -> Result<Query, TargetError> {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match key {
                "ns" => &mut query.ns,
                "n" => &mut query.n,
                "last" => &mut query.last,
                "artifactType" => &mut query.artifact_type,
                "digest" => &mut query.digest,
                "mount" => &mut query.mount,
                "from" => &mut query.from,
                "digest-algorithm" => &mut query.digest_algorithm,
                "tag" if query.tags.len() >= MAX_TAGS => return Err(TargetError::TooManyTags),
                "tag" => {
                    query.tags.push(decode(value)?);
                    continue;
                }
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(decode(&value.replace('+', " "))?);
            }
        }
        // A media type's plus sign is sent as it is by many.
        query.artifact_type = query.artifact_type.map(|value| value.replace(' ', "+"));
        Ok(query)
    }

    fn begin(&self) -> Result<Begin, TargetError> {
        let algorithm = match self.digest_algorithm.as_deref() {
            None => None,
            Some(name) => {
                let known = Algorithm::ALL.into_iter().find(|known| known.as_str() == name);
                Some(known.ok_or(TargetError::Digest(DigestError::Unsupported))?)
            }
        };
        Ok(Begin {
            digest: self.digest.as_deref().map(parse_digest).transpose()?,
            mount: self.mount.as_deref().map(parse_digest).transpose()?,
            from: self.from.as_deref().map(|from| from.parse().map_err(TargetError::Name)).transpose()?,
            algorithm,
        })
    }

    fn page(&self) -> Result<Page, TargetError> {
        let n = match &self.n {
            Some(n) if n.bytes().all(|b| b.is_ascii_digit()) && !n.is_empty() => Some(n.parse().unwrap_or(usize::MAX)),
            Some(_) => return Err(TargetError::Page),
            None => None,
        };
        let last = self.last.clone();
        if last.as_ref().is_some_and(|last| last.len() > 1024 || last.chars().any(char::is_control)) {
            return Err(TargetError::Page);
        }
        Ok(Page { n, last })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(target: &str) -> Result<Target, TargetError> {
        match target.split_once('?') {
            Some((path, query)) => Target::parse(path, Some(query)),
            None => Target::parse(target, None),
        }
    }

    fn endpoint(target: &str) -> Endpoint {
        parse(target).unwrap().endpoint
    }

    #[test]
    fn names_may_hold_the_words_of_the_api() {
        let name: RepoName = "manifests/blobs/tags/list".parse().unwrap();
        assert_eq!(
            endpoint("/v2/manifests/blobs/tags/list/manifests/latest"),
            Endpoint::Manifest(name.clone(), "latest".parse().unwrap())
        );
        assert_eq!(endpoint("/v2/manifests/blobs/tags/list/tags/list"), Endpoint::Tags(name, Page::default()));
    }

    #[test]
    fn every_endpoint_is_found() {
        assert_eq!(endpoint("/v2/"), Endpoint::Base);
        assert_eq!(endpoint("/v2"), Endpoint::Base);
        assert!(matches!(endpoint(&format!("/v2/a/b/blobs/{DIGEST}")), Endpoint::Blob(..)));
        assert!(matches!(endpoint(&format!("/v2/a/manifests/{}", DIGEST.replace(':', "%3A"))), Endpoint::Manifest(..)));
        assert_eq!(
            endpoint("/v2/_catalog?n=10&last=a%2Fb"),
            Endpoint::Catalog(Page { n: Some(10), last: Some("a/b".into()) })
        );
        for query in ["artifactType=application/x%2By", "artifactType=application/x+y"] {
            let wanted = Wanted { artifact_type: Some("application/x+y".into()), last: None };
            let found = endpoint(&format!("/v2/a/referrers/{DIGEST}?{query}"));
            assert_eq!(found, Endpoint::Referrers("a".parse().unwrap(), DIGEST.parse().unwrap(), wanted));
        }
        assert_eq!(parse("/v2/a/tags/list?ns=docker.io").unwrap().ns.as_deref(), Some("docker.io"));
    }

    #[test]
    fn uploads_are_read_from_the_right_too() {
        let id = "0123456789abcdef0123456789abcdef";
        let name: RepoName = "a/blobs/uploads".parse().unwrap();
        let begun = |query: &str| match endpoint(&format!("/v2/a/blobs/uploads/blobs/uploads/{query}")) {
            Endpoint::Uploads(found, begin) if found == name => begin,
            other => panic!("{other:?}"),
        };
        assert_eq!(begun(""), Begin::default());
        let mount = begun(&format!("?from=b%2Fc&mount={}", DIGEST.replace(':', "%3A")));
        assert_eq!((&mount.mount, &mount.from), (&DIGEST.parse().ok(), &"b/c".parse().ok()));
        assert_eq!(begun(&format!("?mount={DIGEST}&from=b/c")), mount, "the order does not matter");
        assert_eq!(begun("?digest-algorithm=sha512").algorithm, Some(Algorithm::Sha512));
        assert_eq!(endpoint("/v2/a/blobs/uploads"), Endpoint::Uploads("a".parse().unwrap(), Begin::default()));
        let parsed = endpoint(&format!("/v2/a/blobs/uploads/{id}?digest={DIGEST}"));
        assert_eq!(parsed, Endpoint::Upload("a".parse().unwrap(), id.parse().unwrap(), DIGEST.parse().ok()));
        for (target, error) in [
            ("/v2/a/blobs/uploads/?digest=sha256:zz", TargetError::Digest(DigestError::Malformed)),
            ("/v2/a/blobs/uploads/?digest-algorithm=md5", TargetError::Digest(DigestError::Unsupported)),
            ("/v2/a/blobs/uploads/?mount=x", TargetError::Digest(DigestError::Malformed)),
            ("/v2/a/blobs/uploads/..", TargetError::Upload),
            ("/v2/a/uploads/x", TargetError::NotFound),
            ("/v2/a/manifests/x?tag=..", TargetError::Reference(NameError::Tag)),
        ] {
            assert_eq!(parse(target), Err(error), "{target}");
        }
        let tagged = |count| parse(&format!("/v2/a/manifests/x?{}", "tag=b&".repeat(count)));
        assert_eq!(tagged(MAX_TAGS).unwrap().tags.len(), MAX_TAGS);
        assert_eq!(tagged(MAX_TAGS + 1), Err(TargetError::TooManyTags));
    }

    #[test]
    fn what_means_nothing_says_why() {
        for (target, error) in [
            ("/", TargetError::NotFound),
            ("/v1/_ping", TargetError::NotFound),
            ("/v2/a", TargetError::NotFound),
            ("/v2//", TargetError::NotFound),
            ("/v2/a/tags/other", TargetError::NotFound),
            ("/v2/A/tags/list", TargetError::Name(NameError::Repository)),
            ("/v2/../etc/passwd/manifests/x", TargetError::Name(NameError::Repository)),
            ("/v2/%2e%2e/manifests/x", TargetError::Name(NameError::Repository)),
            ("/v2/a%2fb/manifests/x", TargetError::Encoding),
            ("/v2/a%252fb/manifests/x", TargetError::Encoding),
            ("/v2/a/manifests/..", TargetError::Reference(NameError::Tag)),
            ("/v2/a/manifests/%ff", TargetError::Encoding),
            ("/v2/a/blobs/sha256:zz", TargetError::Digest(DigestError::Malformed)),
            ("/v2/a/tags/list?n=-1", TargetError::Page),
            ("/v2/a/tags/list?n=", TargetError::Page),
        ] {
            assert_eq!(parse(target), Err(error), "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(/v2)?[/a-z0-9%.:_@-]{0,60}", query in "[a-z0-9=&%+-]{0,30}") {
            let _ = Target::parse(&path, Some(&query));
        }
    }
}
