//! What can be asked about a repository, and how it is written down as a request. Pure: asks nobody.

use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use hyper::{Method, Uri};

use super::flow::Flow;
use super::metrics::Kind;
use super::transport::Bodiless;
use crate::oci::{MediaType, RepoName};

/// Which bytes of a blob are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// Behind the last byte; `None`: up to the blob's end.
    pub end: Option<u64>,
}

impl Span {
    /// All of them.
    pub const WHOLE: Span = Span { start: 0, end: None };

    /// The value of `Range`, if one is needed.
    fn header(self) -> Option<String> {
        match self {
            Span::WHOLE => None,
            Span { start, end: None } => Some(format!("bytes={start}-")),
            Span { start, end: Some(end) } => Some(format!("bytes={start}-{}", end.saturating_sub(1))),
        }
    }
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The cache, for a client or ahead of one.
    Client,
    /// The probe, which asks what is out of order whether it still is.
    Probe,
}

/// Something to ask about a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What it is about.
    pub kind: Kind,
    /// The repository.
    pub repo: RepoName,
    /// Behind `/v2/<repository>/`; nothing for a token.
    pub path: String,
    /// The bytes that are wanted.
    pub span: Span,
    /// Who asks.
    pub by: By,
    /// In which share of the line; a small answer needs none.
    pub flow: Option<Flow>,
}

impl Question {
    /// A question for the cache.
    pub fn new(kind: Kind, repo: &RepoName, path: String) -> Question {
        Question { kind, repo: repo.clone(), path, span: Span::WHOLE, by: By::Client, flow: None }
    }

    /// The same for a part of a blob.
    pub fn of_blob(repo: &RepoName, path: String, span: Span, flow: &Flow) -> Question {
        Question { span, flow: Some(flow.clone()), ..Question::new(Kind::Blob, repo, path) }
    }

    /// The question for a token that this one needs.
    pub fn for_token(&self) -> Question {
        Question { kind: Kind::Token, path: String::new(), span: Span::WHOLE, ..self.without_flow() }
    }

    /// The same question, for whoever keeps it longer than its fill lasts.
    pub fn without_flow(&self) -> Question {
        Question { flow: None, ..self.clone() }
    }

    /// The same question as cheaply as it can be asked: a manifest costs no pull, a blob one byte.
    pub fn check(&self) -> Question {
        let start = self.span.start;
        let (kind, span) = match self.kind {
            Kind::Manifest => (Kind::ManifestHead, Span::WHOLE),
            Kind::Blob => (Kind::Blob, Span { start, end: Some(start + 1) }),
            kind => (kind, self.span),
        };
        let path = if kind == Kind::Tags { TAGS_CHECK.to_owned() } else { self.path.clone() };
        Question { kind, repo: self.repo.clone(), path, span, by: By::Probe, flow: None }
    }

    /// What to check instead where a HEAD is not answered as a GET is (protocol 2.6).
    pub fn instead_of_head(&self) -> Option<Question> {
        let is_head = self.kind == Kind::ManifestHead;
        is_head.then(|| Question { kind: Kind::Tags, path: TAGS_CHECK.into(), by: By::Probe, ..self.clone() })
    }

    /// What it asks for, among all that can be asked of a host.
    pub fn what(&self) -> String {
        format!("{}/{}", self.repo, self.path)
    }

    /// Questions that a host answers in the same way.
    pub fn class(&self) -> Class {
        match self.kind {
            Kind::Manifest | Kind::ManifestHead => Class::Manifests,
            Kind::Blob | Kind::BlobHead => Class::Blobs,
            Kind::Token | Kind::Tags | Kind::Referrers => Class::Others,
        }
    }

    /// One request of it, at `url`.
    pub fn request(&self, url: &Uri, authorization: Option<HeaderValue>) -> Bodiless {
        let mut request = Bodiless::default();
        *request.uri_mut() = url.clone();
        if matches!(self.kind, Kind::ManifestHead | Kind::BlobHead) {
            *request.method_mut() = Method::HEAD;
        }
        let headers = request.headers_mut();
        if let Some(accept) = accept(self.kind) {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(Ok(range)) = self.span.header().map(HeaderValue::try_from) {
            headers.insert(RANGE, range);
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        request
    }
}

const TAGS_CHECK: &str = "tags/list?n=1";

/// Kinds of questions of which one that is answered says something about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Manifests.
    Manifests,
    /// Blobs.
    Blobs,
    /// All else.
    Others,
}

fn accept(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Manifest | Kind::ManifestHead => Some(MediaType::ACCEPT),
        Kind::Referrers => Some(MediaType::OciIndex.as_str()),
        Kind::Tags | Kind::Token => Some("application/json"),
        Kind::Blob | Kind::BlobHead => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Priority;

    #[test]
    fn a_check_costs_no_pull_and_no_download() {
        let repo: RepoName = "library/alpine".parse().unwrap();
        let manifest = Question::new(Kind::Manifest, &repo, "manifests/latest".into()).check();
        assert_eq!(
            (manifest.kind, manifest.path.as_str(), manifest.by),
            (Kind::ManifestHead, "manifests/latest", By::Probe)
        );
        let span = Span { start: 7, end: None };
        let blob = Question::of_blob(&repo, "blobs/x".into(), span, &Flow::new(None, Priority::Background)).check();
        assert_eq!((blob.kind, blob.span), (Kind::Blob, Span { start: 7, end: Some(8) }));
        assert_eq!(Question::new(Kind::Tags, &repo, "tags/list".into()).check().path, "tags/list?n=1");
    }
}
