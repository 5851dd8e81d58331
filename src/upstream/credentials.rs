//! What a registry lets us in with (protocol 2.2): a token for each repository, or a password for all.
//!
//! A token service is checked before a byte goes to it. Tokens are fetched by tasks, one at a time per repository, so
//! that whoever leaves takes nothing away from those who wait. Never sends anything to the registry itself.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode};
use moka::future::Cache;
use moka::ops::compute::Op;

use super::allowance::{Limit, Who};
use super::challenge::{self, Challenge};
use super::error::{Part, UpstreamError};
use super::headers;
use super::line::{Answer, Line};
use super::origin::Origin;
use super::question::{By, Question};
use super::realm;
use super::settings::Account;
use super::token::{MAX_ANSWER, Token, TokenService, basic};
use crate::clock::Clock;
use crate::oci::RepoName;
use crate::task;

/// Tokens that are kept, of some 3 KiB each.
const TOKENS: u64 = 2000;
/// A bound for those that nobody asks about again; no token lives longer.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What to send along with a question.
pub enum Credential {
    /// The account itself.
    Basic(HeaderValue),
    /// A token, and whether it was fetched for this very question.
    Token {
        /// The token.
        token: Token,
        /// Then another one would be refused as well.
        is_fresh: bool,
    },
}

impl Credential {
    /// The `Authorization`.
    pub fn header(&self) -> HeaderValue {
        match self {
            Credential::Basic(header) => header.clone(),
            Credential::Token { token, .. } => token.header.clone(),
        }
    }
}

/// How the registry wants to be asked, as far as it has said.
#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Bearer(TokenService),
    Basic,
}

/// The credentials for one upstream. Clones share them.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    registry: Origin,
    who: Option<Who>,
    account: Option<Account>,
    line: Arc<Line>,
    clock: Clock,
    scheme: Mutex<Option<Scheme>>,
    tokens: Cache<RepoName, Token>,
}

impl Credentials {
    /// Credentials for the registry at `registry`, as `account` or as anyone. What is asked with them counts for `who`.
    pub fn new(
        registry: Origin,
        who: Option<Who>,
        account: Option<Account>,
        line: Arc<Line>,
        clock: Clock,
    ) -> Credentials {
        let tokens = Cache::builder().max_capacity(TOKENS).time_to_live(FORGOTTEN).build();
        Credentials(Arc::new(Inner { registry, who, account, line, clock, scheme: Mutex::new(None), tokens }))
    }

    /// Whose they are.
    pub fn who(&self) -> Option<Who> {
        self.0.who
    }

    /// What to send with the first attempt at `question`: nothing until the registry has said what it wants.
    pub async fn known(&self, question: &Question) -> Result<Option<Credential>, UpstreamError> {
        match self.scheme() {
            None => Ok(None),
            Some(Scheme::Basic) => Ok(self.basic()),
            Some(Scheme::Bearer(service)) => self.token(question, service).await.map(Some),
        }
    }

    /// What to send after a 401 with these `headers`, for an attempt at `question` that had sent `refused`.
    pub async fn respond(
        &self,
        headers: &HeaderMap,
        question: &Question,
        refused: Option<&Credential>,
    ) -> Result<Credential, UpstreamError> {
        let hopeless = UpstreamError::Refused { status: StatusCode::UNAUTHORIZED.as_u16() };
        let Some(scheme) = self.read(headers).inspect_err(|error| {
            self.0.line.health().failed(&Arc::new(question.for_token()), error);
        })?
        else {
            return Err(hopeless);
        };
        let is_news = self.remember(scheme.clone());
        match (scheme, refused) {
            (Scheme::Basic, Some(Credential::Basic(_))) => Err(UpstreamError::AccountRefused { part: Part::Registry }),
            (Scheme::Basic, _) => self.basic().ok_or(hopeless),
            (Scheme::Bearer(_), Some(Credential::Token { is_fresh: true, .. })) if !is_news => Err(hopeless),
            (Scheme::Bearer(service), refused) => {
                if let Some(Credential::Token { token, .. }) = refused {
                    self.0.drop_token(&question.repo, token).await;
                }
                self.token(question, service).await
            }
        }
    }

    /// Reads from a 401's `headers` how the registry wants to be asked, and says whether that is news.
    pub fn learn(&self, headers: &HeaderMap) -> Result<bool, UpstreamError> {
        Ok(self.read(headers)?.is_some_and(|scheme| self.remember(scheme)))
    }

    /// Fetches a new token for `question`'s repository, although there may be one; `None` if none is wanted.
    pub async fn renew(&self, question: &Arc<Question>) -> Option<Result<(), UpstreamError>> {
        let Some(Scheme::Bearer(service)) = self.scheme() else { return None };
        Some(match self.0.fetch(question, &service).await {
            Ok(token) => {
                self.0.tokens.insert(question.repo.clone(), token).await;
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    fn read(&self, headers: &HeaderMap) -> Result<Option<Scheme>, UpstreamError> {
        match challenge::strongest(headers) {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(Some(Scheme::Basic)),
            Some(Challenge::Bearer { realm, service }) => {
                let realm = realm::check(&self.0.registry, &realm)
                    .map_err(|reason| UpstreamError::Forbidden { part: Part::Token, reason })?;
                Ok(Some(Scheme::Bearer(TokenService { realm, service })))
            }
        }
    }

    fn basic(&self) -> Option<Credential> {
        self.0.account.as_ref().and_then(basic).map(Credential::Basic)
    }

    fn scheme(&self) -> Option<Scheme> {
        self.0.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether that was not known before.
    fn remember(&self, scheme: Scheme) -> bool {
        let mut known = self.0.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = known.as_ref() != Some(&scheme);
        *known = Some(scheme);
        is_news
    }

    async fn token(&self, question: &Question, service: TokenService) -> Result<Credential, UpstreamError> {
        let began = self.0.clock.tick();
        let old = self.0.tokens.get(&question.repo).await;
        if let Some(token) = &old
            && !token.is_due(began)
        {
            return Ok(Credential::Token { token: token.clone(), is_fresh: false });
        }
        let (inner, question) = (self.0.clone(), Arc::new(question.for_token()));
        let fetching = task::spawn("token", async move {
            if let Some(old) = &old {
                inner.drop_token(&question.repo, old).await;
            }
            inner.tokens.try_get_with_by_ref(&question.repo, inner.replace(&question, &service, old)).await
        });
        let token = match fetching.await {
            Ok(fetched) => fetched.map_err(|error| (*error).clone())?,
            Err(ended) => {
                return Err(UpstreamError::Unreachable { part: Part::Token, reason: ended.to_string() });
            }
        };
        let is_fresh = token.asked >= began;
        Ok(Credential::Token { token, is_fresh })
    }
}

impl Inner {
    /// Drops that token, and not the one that may have taken its place.
    async fn drop_token(&self, repo: &RepoName, token: &Token) {
        let decide = |entry: Option<moka::Entry<RepoName, Token>>| {
            ready(if entry.is_some_and(|entry| entry.value() == token) { Op::Remove } else { Op::Nop })
        };
        self.tokens.entry_by_ref(repo).and_compute_with(decide).await;
    }

    /// A new token, or the old one while the service is out of order and it still lives.
    async fn replace(
        &self,
        question: &Arc<Question>,
        service: &TokenService,
        old: Option<Token>,
    ) -> Result<Token, UpstreamError> {
        match self.fetch(question, service).await {
            Err(error) if error.is_outage() => old.and_then(|old| old.kept(self.clock.tick())).ok_or(error),
            result => result,
        }
    }

    /// A new token. How that went is noted here, once for all who wait for it.
    async fn fetch(&self, question: &Arc<Question>, service: &TokenService) -> Result<Token, UpstreamError> {
        let fetched = self.fetch_from(question, service).await;
        match &fetched {
            Ok(_) if question.by == By::Client => self.line.health().succeeded(Part::Token, question),
            Ok(_) => {}
            // Whoever refuses us works.
            Err(UpstreamError::Refused { .. }) => self.line.health().alive(Part::Token),
            Err(UpstreamError::RateLimited { retry_after, .. }) => {
                self.line.allowance().limited(self.who, Limit::Requests, *retry_after);
                self.line.health().alive(Part::Token);
            }
            Err(UpstreamError::AccountRefused { .. }) => {
                self.line.allowance().refused(self.who);
                self.line.health().alive(Part::Token);
            }
            Err(error) => self.line.health().failed(question, error),
        }
        fetched
    }

    async fn fetch_from(&self, question: &Arc<Question>, service: &TokenService) -> Result<Token, UpstreamError> {
        let part = Part::Token;
        let url = service
            .url(&question.repo, self.account.as_ref())
            .ok_or_else(|| UpstreamError::Invalid { part, reason: "its URL cannot take our question".into() })?;
        let request = question.request(&url, self.account.as_ref().and_then(basic));
        let place = self.line.place(part, question).await?;
        let asked = self.clock.tick();
        let mut answer = self.line.send(part, question, request).await?.keeping(place);
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&answer));
        }
        let body = answer.whole(MAX_ANSWER).await?;
        Token::read(&body, asked).map_err(|reason| answer.invalid(reason))
    }

    fn refusal(&self, answer: &Answer) -> UpstreamError {
        let part = answer.part;
        // Some registries hide what does not exist here already; what stands in front of one answers in HTML.
        let is_spoken = headers::essence(&answer.headers).ends_with("json");
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => {
                UpstreamError::RateLimited { part, retry_after: self.line.retry_after(&answer.headers) }
            }
            StatusCode::UNAUTHORIZED if self.account.is_some() => UpstreamError::AccountRefused { part },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_spoken => {
                UpstreamError::Refused { status: answer.status.as_u16() }
            }
            _ => answer.unexpected(),
        }
    }
}
