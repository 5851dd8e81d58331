//! What a registry lets us in with (protocol 2.2): a token for each repository, or a password for all.
//!
//! A token service is checked before a byte goes to it. Tokens are fetched by tasks, one at a time per repository, so
//! that whoever leaves takes nothing away from those who wait. Never sends anything to the registry itself.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use moka::future::Cache;
use moka::ops::compute::Op;

use super::challenge::{self, Challenge};
use super::error::{Part, UpstreamError};
use super::headers;
use super::line::{Answer, Line};
use super::metrics::Kind;
use super::origin::Origin;
use super::realm;
use super::settings::Account;
use super::token::{MAX_ANSWER, Token, TokenService, basic};
use super::transport::Bodiless;
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
    account: Option<Account>,
    line: Arc<Line>,
    clock: Clock,
    scheme: Mutex<Option<Scheme>>,
    tokens: Cache<RepoName, Token>,
}

impl Credentials {
    /// Credentials for the registry at `registry`, as `account` or as anyone.
    pub fn new(registry: Origin, account: Option<Account>, line: Arc<Line>, clock: Clock) -> Credentials {
        let tokens = Cache::builder().max_capacity(TOKENS).time_to_live(FORGOTTEN).build();
        Credentials(Arc::new(Inner { registry, account, line, clock, scheme: Mutex::new(None), tokens }))
    }

    /// What to send with the first attempt to read from `repo`: nothing until the registry has said what it wants.
    pub async fn known(&self, repo: &RepoName) -> Result<Option<Credential>, UpstreamError> {
        match self.scheme() {
            None => Ok(None),
            Some(Scheme::Basic) => Ok(self.basic()),
            Some(Scheme::Bearer(service)) => match self.token(repo, service).await {
                Ok(credential) => Ok(Some(credential)),
                Err(error) => {
                    // Perhaps it has moved: the registry's next challenge tells.
                    if error.is_outage() {
                        self.remember(None);
                    }
                    Err(error)
                }
            },
        }
    }

    /// What to send after a 401 with these `headers`, for an attempt that had sent `refused`.
    pub async fn respond(
        &self,
        headers: &HeaderMap,
        repo: &RepoName,
        refused: Option<&Credential>,
    ) -> Result<Credential, UpstreamError> {
        let hopeless = UpstreamError::Refused { status: StatusCode::UNAUTHORIZED.as_u16() };
        let scheme = match challenge::strongest(headers) {
            None => return Err(hopeless),
            Some(Challenge::Basic) => Scheme::Basic,
            Some(Challenge::Bearer { realm, service }) => {
                let realm = realm::check(&self.0.registry, &realm).map_err(|reason| {
                    self.0.line.fault(Part::Token);
                    UpstreamError::Forbidden { part: Part::Token, reason }
                })?;
                Scheme::Bearer(TokenService { realm, service })
            }
        };
        let is_news = self.remember(Some(scheme.clone()));
        match (scheme, refused) {
            (Scheme::Basic, Some(Credential::Basic(_))) => Err(UpstreamError::AccountRefused { part: Part::Registry }),
            (Scheme::Basic, _) => self.basic().ok_or(hopeless),
            (Scheme::Bearer(_), Some(Credential::Token { is_fresh: true, .. })) if !is_news => Err(hopeless),
            (Scheme::Bearer(service), refused) => {
                if let Some(Credential::Token { token, .. }) = refused {
                    self.0.drop_token(repo, token).await;
                }
                self.token(repo, service).await
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
    fn remember(&self, scheme: Option<Scheme>) -> bool {
        let mut known = self.0.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *known != scheme;
        *known = scheme;
        is_news
    }

    async fn token(&self, repo: &RepoName, service: TokenService) -> Result<Credential, UpstreamError> {
        let began = self.0.clock.tick();
        let old = self.0.tokens.get(repo).await;
        if let Some(token) = &old
            && !token.is_due(began)
        {
            return Ok(Credential::Token { token: token.clone(), is_fresh: false });
        }
        let (inner, repo) = (self.0.clone(), repo.clone());
        let fetching = task::spawn("token", async move {
            if let Some(old) = &old {
                inner.drop_token(&repo, old).await;
            }
            inner.tokens.try_get_with_by_ref(&repo, inner.replace(&repo, &service, old)).await
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
        repo: &RepoName,
        service: &TokenService,
        old: Option<Token>,
    ) -> Result<Token, UpstreamError> {
        match self.fetch(repo, service).await {
            Err(error) if error.is_outage() => old.and_then(|old| old.kept(self.clock.tick())).ok_or(error),
            result => result,
        }
    }

    async fn fetch(&self, repo: &RepoName, service: &TokenService) -> Result<Token, UpstreamError> {
        let part = Part::Token;
        let mut question = Bodiless::default();
        *question.uri_mut() = service
            .url(repo, self.account.as_ref())
            .ok_or_else(|| UpstreamError::Invalid { part, reason: "its URL cannot take our question".into() })?;
        question.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(header) = self.account.as_ref().and_then(basic) {
            question.headers_mut().insert(AUTHORIZATION, header);
        }
        let place = self.line.place(Kind::Token, None).await;
        let asked = self.clock.tick();
        let mut answer = self.line.send(Kind::Token, part, question).await?.keeping(place, None);
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
            StatusCode::UNAUTHORIZED if self.account.is_some() => answer.fault(UpstreamError::AccountRefused { part }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_spoken => {
                UpstreamError::Refused { status: answer.status.as_u16() }
            }
            _ => answer.unexpected(),
        }
    }
}
