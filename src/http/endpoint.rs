//! What a request asks for: its path and query, parsed once into one typed value. No string passes this line.
//!
//! `/v2/…` is read from the right, because a repository's name may itself contain `manifests`, `blobs` or `tags`. Pure;
//! never looks at headers, and never normalises: what is not written as the grammar says is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::oci::{Digest, DigestError, NameError, Reference, RepoName};

/// What a `GET` or `HEAD` below `/v2/` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog(Page),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepoName, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepoName, Digest),
    /// `/v2/<name>/tags/list`
    Tags(RepoName, Page),
    /// `/v2/<name>/referrers/<digest>`, with the artifact type that is wanted
    Referrers(RepoName, Digest, Option<String>),
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
    /// `n` or `last`.
    #[error("n must be a number of entries, and last the text of one")]
    Page,
    /// Percent signs that encode nothing, or not text.
    #[error("the address is not valid percent-encoded text")]
    Encoding,
}

impl Endpoint {
    /// The endpoint's name in logs and metrics; one of a closed set.
    pub fn name(&self) -> &'static str {
        match self {
            Endpoint::Base => "base",
            Endpoint::Catalog(_) => "catalog",
            Endpoint::Manifest(..) => "manifest",
            Endpoint::Blob(..) => "blob",
            Endpoint::Tags(..) => "tags",
            Endpoint::Referrers(..) => "referrers",
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
        Ok(Target { endpoint, ns: query.ns })
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
    let (rest, last) = rest.rsplit_once('/').ok_or(TargetError::NotFound)?;
    let (name, kind) = rest.rsplit_once('/').ok_or(TargetError::NotFound)?;
    let name = || segment_text(name)?.parse::<RepoName>().map_err(TargetError::Name);
    let last = segment_text(last)?;
    match (kind, last.as_ref()) {
        ("manifests", reference) => Ok(Endpoint::Manifest(name()?, reference.parse().map_err(TargetError::Reference)?)),
        ("blobs", digest) => Ok(Endpoint::Blob(name()?, digest.parse().map_err(TargetError::Digest)?)),
        ("tags", "list") => Ok(Endpoint::Tags(name()?, query.page()?)),
        ("referrers", digest) => {
            let digest = digest.parse().map_err(TargetError::Digest)?;
            Ok(Endpoint::Referrers(name()?, digest, query.artifact_type.clone()))
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

#[derive(Default)]
struct Query {
    ns: Option<String>,
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
        let with_type = endpoint(&format!("/v2/a/referrers/{DIGEST}?artifactType=application/x%2By"));
        assert!(matches!(with_type, Endpoint::Referrers(_, _, Some(kind)) if kind == "application/x+y"));
        let bare_plus = endpoint(&format!("/v2/a/referrers/{DIGEST}?artifactType=application/x+y"));
        assert!(matches!(bare_plus, Endpoint::Referrers(_, _, Some(kind)) if kind == "application/x+y"));
        assert_eq!(parse("/v2/a/tags/list?ns=docker.io").unwrap().ns.as_deref(), Some("docker.io"));
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
        fn no_path_makes_it_panic(path in "(/v2)?[/a-z0-9%.:_@-]{0,60}", query in "[a-z0-9=&%+]{0,30}") {
            let _ = Target::parse(&path, Some(&query));
        }
    }
}
