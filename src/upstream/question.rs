//! Asking the registry: with what it wants to see, and wherever it redirects us.
//!
//! The order is always the same: a credential, a place on the line, the request, its redirects; at most one more round
//! after a 401, and one more after a link that the CDN no longer honours. Credentials never leave the registry's origin.

use std::sync::Arc;

use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use hyper::{Method, StatusCode, Uri};

use super::blob::Span;
use super::credentials::{Credential, Credentials};
use super::error::{Part, UpstreamError};
use super::flow::Flow;
use super::headers;
use super::line::{Answer, Line};
use super::metrics::Kind;
use super::origin::{Origin, Refusal};
use super::redirect::{self, MAX_HOPS};
use super::transport::Bodiless;
use crate::oci::{MediaType, RepoName};

/// Something to ask about a repository.
pub struct Question<'a> {
    /// What it is about.
    pub kind: Kind,
    /// The repository.
    pub repo: &'a RepoName,
    /// Behind `/v2/<repository>/`.
    pub path: String,
    /// The bytes that are wanted.
    pub span: Span,
    /// In which share of the line; a small answer needs none.
    pub flow: Option<&'a Flow>,
}

/// Asks one registry.
pub struct Asker {
    base: String,
    origin: Origin,
    line: Arc<Line>,
    credentials: Credentials,
}

impl Asker {
    /// Asks the registry at `url`.
    pub fn new(url: &Uri, line: Arc<Line>, credentials: Credentials) -> Asker {
        Asker { base: url.to_string().trim_end_matches('/').to_owned(), origin: Origin::of(url), line, credentials }
    }

    /// The answer to `question`; every status but success is an error.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Answer, UpstreamError> {
        let mut answer = self.ask_with_credential(question).await?;
        if is_dead_link(&answer) {
            answer.discard().await;
            answer = self.ask_with_credential(question).await?;
        }
        match answer.status {
            // A blob in HTML may be one: its digest decides.
            StatusCode::OK if question.kind != Kind::Blob && headers::is_page(&answer.headers) => {
                Err(answer.invalid("it is a page in HTML"))
            }
            StatusCode::OK => Ok(answer),
            StatusCode::PARTIAL_CONTENT if question.span != Span::WHOLE => Ok(answer),
            StatusCode::RANGE_NOT_SATISFIABLE if question.span != Span::WHOLE => {
                Err(UpstreamError::OutOfRange { part: answer.part })
            }
            _ => Err(self.refusal(question.kind, &answer)),
        }
    }

    async fn ask_with_credential(&self, question: &Question<'_>) -> Result<Answer, UpstreamError> {
        let credential = self.credentials.known(question.repo).await?;
        let answer = self.follow(question, credential.as_ref()).await?;
        if !is_challenge(&answer) {
            return Ok(answer);
        }
        let challenge = answer.discard().await;
        let credential = self.credentials.respond(&challenge, question.repo, credential.as_ref()).await?;
        let answer = self.follow(question, Some(&credential)).await?;
        match credential {
            Credential::Basic(_) if is_challenge(&answer) => {
                Err(answer.fault(UpstreamError::AccountRefused { part: Part::Registry }))
            }
            _ => Ok(answer),
        }
    }

    /// The answer at the end of the redirects.
    async fn follow(&self, question: &Question<'_>, credential: Option<&Credential>) -> Result<Answer, UpstreamError> {
        let place = self.line.place(question.kind, question.flow).await;
        let start = format!("{}/v2/{}/{}", self.base, question.repo, question.path);
        let (mut part, mut credential) = (Part::Registry, credential);
        let mut url: Uri = start.parse().map_err(|_| UpstreamError::Invalid { part, reason: "no URL".into() })?;
        for _ in 0..=MAX_HOPS {
            let answer = self.line.send(question.kind, part, request(question, &url, credential)).await?;
            let Some(next) = self.redirect(&url, &answer)? else {
                return Ok(answer.keeping(place, question.flow.cloned()));
            };
            answer.discard().await;
            let origin = Origin::of(&next);
            if origin != Origin::of(&url) {
                credential = None;
            }
            part = if origin == self.origin { Part::Registry } else { Part::Cdn };
            url = next;
        }
        self.line.fault(part);
        Err(UpstreamError::Invalid { part, reason: format!("more than {MAX_HOPS} redirects") })
    }

    /// Where `answer`, to a request for `url`, sends us, if it does.
    fn redirect(&self, url: &Uri, answer: &Answer) -> Result<Option<Uri>, UpstreamError> {
        let location = match answer.status.as_u16() {
            301 | 302 | 303 | 307 | 308 => answer.headers.get(LOCATION),
            _ => None,
        };
        let Some(location) = location else { return Ok(None) };
        let target = location.to_str().map_err(|_| Refusal::Malformed);
        match target.and_then(|location| redirect::target(&self.origin, url, location)) {
            Ok(next) => Ok(Some(next)),
            Err(Refusal::Malformed) => Err(answer.invalid("its redirect leads to no URL")),
            Err(Refusal::Forbidden(reason)) => Err(answer.fault(UpstreamError::Forbidden { part: Part::Cdn, reason })),
        }
    }

    fn refusal(&self, kind: Kind, answer: &Answer) -> UpstreamError {
        let is_spoken = answer.part == Part::Registry && !headers::is_page(&answer.headers);
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = self.line.retry_after(&answer.headers);
                UpstreamError::RateLimited { part: answer.part, retry_after }
            }
            StatusCode::NOT_FOUND if is_spoken && !is_bare_text(kind, answer) => UpstreamError::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_spoken => {
                UpstreamError::Refused { status: answer.status.as_u16() }
            }
            _ => answer.unexpected(),
        }
    }
}

/// One request of `question`, at `url`.
fn request(question: &Question<'_>, url: &Uri, credential: Option<&Credential>) -> Bodiless {
    let mut request = Bodiless::default();
    *request.uri_mut() = url.clone();
    if matches!(question.kind, Kind::ManifestHead | Kind::BlobHead) {
        *request.method_mut() = Method::HEAD;
    }
    let headers = request.headers_mut();
    if let Some(accept) = accept(question.kind) {
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
    }
    if let Some(Ok(range)) = question.span.header().map(HeaderValue::try_from) {
        headers.insert(RANGE, range);
    }
    if let Some(credential) = credential {
        headers.insert(AUTHORIZATION, credential.header());
    }
    request
}

fn accept(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Manifest | Kind::ManifestHead => Some(MediaType::ACCEPT),
        Kind::Referrers => Some(MediaType::OciIndex.as_str()),
        Kind::Tags | Kind::Token => Some("application/json"),
        Kind::Blob | Kind::BlobHead => None,
    }
}

/// A 401 of the registry itself.
fn is_challenge(answer: &Answer) -> bool {
    answer.status == StatusCode::UNAUTHORIZED && answer.part == Part::Registry && !headers::is_page(&answer.headers)
}

/// Signed links expire, and now and then one is refused for no reason; the registry gives another (protocol 2.4).
fn is_dead_link(answer: &Answer) -> bool {
    answer.part == Part::Cdn
        && match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
            StatusCode::BAD_REQUEST => headers::essence(&answer.headers).ends_with("xml"),
            _ => false,
        }
}

/// A 404 in bare text is a router that knows no such path: for what every registry has, an outage (protocol 2.6).
fn is_bare_text(kind: Kind, answer: &Answer) -> bool {
    !matches!(kind, Kind::Tags | Kind::Referrers) && headers::essence(&answer.headers) == "text/plain"
}
