//! Asking one host: with what it wants to see, and wherever it redirects us.
//!
//! The order is always the same: a credential, a place on the line, the request, its redirects; at most one more round
//! after a 401, and one more after a link that the CDN no longer honours. Credentials never leave the registry's origin.

use std::sync::Arc;

use hyper::header::LOCATION;
use hyper::{StatusCode, Uri};

use super::allowance::Limit;
use super::credentials::{Credential, Credentials};
use super::error::{Part, UpstreamError};
use super::headers;
use super::line::{Answer, Line};
use super::metrics::Kind;
use super::origin::{Origin, Refusal};
use super::question::{By, Question, Span};
use super::redirect::{self, MAX_HOPS};

/// Asks one registry.
pub struct Asker {
    base: String,
    origin: Origin,
    line: Arc<Line>,
}

impl Asker {
    /// Asks the registry at `url`.
    pub fn new(url: &Uri, line: Arc<Line>) -> Asker {
        Asker { base: url.to_string().trim_end_matches('/').to_owned(), origin: Origin::of(url), line }
    }

    /// The line to it.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The answer to `question`; every status but success is an error. What comes of it is noted in the host's health,
    /// but for what the probe finds.
    pub async fn ask(&self, question: &Arc<Question>, credentials: &Credentials) -> Result<Answer, UpstreamError> {
        let health = self.line.health();
        match self.answer(question, credentials).await {
            Ok(answer) => {
                if question.by == By::Client {
                    health.succeeded(answer.part, question);
                }
                self.line.allowance().succeeded(credentials.who(), question.kind);
                Ok(answer)
            }
            // Credentials have seen to those of the token service.
            Err(error) if error.part() == Part::Token => Err(error),
            Err(error) => {
                health.failed(question, &error);
                Err(error)
            }
        }
    }

    /// Has a new token fetched for `question`'s repository, to see whether one can be had. What the registry says about
    /// where is believed before what it once said.
    pub async fn check_token(&self, question: &Arc<Question>, credentials: &Credentials) -> Result<(), UpstreamError> {
        let renewed = credentials.renew(question).await;
        if matches!(renewed, Some(Ok(()))) {
            return Ok(());
        }
        let to_registry = Arc::new(Question { kind: Kind::Tags, path: "tags/list?n=1".into(), ..(**question).clone() });
        let answer = self.follow(&to_registry, credentials, None).await;
        match (answer, renewed) {
            (Ok(answer), renewed) if is_challenge(&answer) => {
                if credentials.learn(&answer.discard().await)? {
                    return credentials.renew(question).await.unwrap_or(Ok(()));
                }
                renewed.unwrap_or(Ok(()))
            }
            // No token is wanted any more.
            (Ok(_), None) => Ok(()),
            (_, Some(renewed)) => renewed,
            (Err(error), None) => Err(error),
        }
    }

    async fn answer(&self, question: &Arc<Question>, credentials: &Credentials) -> Result<Answer, UpstreamError> {
        let mut answer = self.ask_with_credential(question, credentials).await?;
        if is_dead_link(&answer) {
            answer.discard().await;
            answer = self.ask_with_credential(question, credentials).await?;
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
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = self.line.retry_after(&answer.headers);
                // Docker Hub says so in JSON where pulls are meant, and in bare text where it is all that we ask.
                let is_json = headers::essence(&answer.headers).ends_with("json");
                let limit = if question.kind == Kind::Manifest && is_json { Limit::Pulls } else { Limit::Requests };
                self.line.allowance().limited(credentials.who(), limit, retry_after);
                Err(UpstreamError::RateLimited { part: answer.part, retry_after })
            }
            _ => Err(refusal(question.kind, &answer)),
        }
    }

    async fn ask_with_credential(
        &self,
        question: &Arc<Question>,
        credentials: &Credentials,
    ) -> Result<Answer, UpstreamError> {
        let credential = match credentials.known(question).await {
            // The probe asks the registry how it is, although the token service may be out of order.
            Err(_) if question.by == By::Probe => None,
            known => known?,
        };
        let answer = self.follow(question, credentials, credential.as_ref()).await?;
        if !is_challenge(&answer) {
            return Ok(answer);
        }
        let challenge = answer.discard().await;
        let credential = credentials.respond(&challenge, question, credential.as_ref()).await.inspect_err(|error| {
            // The registry has asked for a token as it should. What it would have said to one is not known.
            if error.part() == Part::Token {
                self.line.health().alive(Part::Registry);
            }
        })?;
        let answer = self.follow(question, credentials, Some(&credential)).await?;
        match credential {
            Credential::Basic(_) if is_challenge(&answer) => {
                self.line.allowance().refused(credentials.who());
                Err(UpstreamError::AccountRefused { part: Part::Registry })
            }
            _ => Ok(answer),
        }
    }

    /// The answer at the end of the redirects.
    async fn follow(
        &self,
        question: &Arc<Question>,
        credentials: &Credentials,
        credential: Option<&Credential>,
    ) -> Result<Answer, UpstreamError> {
        let (mut part, mut credential) = (Part::Registry, credential);
        let place = self.line.place(part, question).await?;
        let start = format!("{}/v2/{}/{}", self.base, question.repo, question.path);
        let mut url: Uri = start.parse().map_err(|_| UpstreamError::Invalid { part, reason: "no URL".into() })?;
        for _ in 0..=MAX_HOPS {
            self.line.admit(part, question)?;
            let request = question.request(&url, credential.map(Credential::header));
            let answer = self.line.send(part, question, request).await?;
            if part == Part::Registry
                && let Some(told) = headers::rate_limit(&answer.headers)
            {
                self.line.allowance().told(credentials.who(), told);
            }
            let Some(next) = self.redirect(&url, &answer)? else { return Ok(answer.keeping(place)) };
            answer.discard().await;
            let origin = Origin::of(&next);
            if origin != Origin::of(&url) {
                credential = None;
            }
            let next_part = if origin == self.origin { Part::Registry } else { Part::Cdn };
            if part == Part::Registry && next_part == Part::Cdn {
                self.line.health().succeeded(part, question);
            }
            (part, url) = (next_part, next);
        }
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
            Err(Refusal::Forbidden(reason)) => Err(UpstreamError::Forbidden { part: Part::Cdn, reason }),
        }
    }
}

fn refusal(kind: Kind, answer: &Answer) -> UpstreamError {
    let is_spoken = answer.part == Part::Registry && !headers::is_page(&answer.headers);
    match answer.status {
        StatusCode::NOT_FOUND if is_spoken && !is_bare_text(kind, answer) => UpstreamError::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_spoken => {
            UpstreamError::Refused { status: answer.status.as_u16() }
        }
        _ => answer.unexpected(),
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
