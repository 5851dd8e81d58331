//! Who may do what with our own repositories: accounts, tokens, rules. It answers; it never speaks HTTP, and never looks
//! whether a repository exists.
//!
//! A request's credential becomes an [`Identity`], and the rules say what that may. A token can do what it lists and the
//! rules still give, to an account that still has the password it was made with. Whatever cannot be checked is refused.

mod accounts;
mod action;
mod challenge;
mod credential;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grant;
pub mod htpasswd;
mod identity;
mod passwords;
mod request;
mod rules;
mod scope;
#[cfg(test)]
mod tests;
mod token;
mod token_key;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use accounts::AccountsFile;
use passwords::{Passwords, Question};
use scope::{Grants, Scope};
use token::{Claims, Kind};

use crate::clock::Clock;
use crate::oci::{RepoName, Tag};
use crate::secret::Secret;
use crate::task;

pub use action::Action;
pub use challenge::{Decision, Fault, Origin, SERVICE, Scheme, Wanted};
pub use credential::Credential;
pub use error::{AccessError, SetupError};
pub use grant::TokenGrant;
pub use identity::{Identity, Reach};
pub use request::{MAX_REQUEST, TokenRequest};
pub use rules::{Anonymous, Grantee, Rule, Rules};
pub use token::TokenKey;

/// What access control is made of.
pub struct Settings {
    /// Which names are ours, and who may do what with them; in the order in which they are asked.
    pub rules: Vec<Rule>,
    /// What `*` gives to someone without an account.
    pub anonymous: Anonymous,
    /// The file of accounts; none: nobody has one.
    pub htpasswd: Option<PathBuf>,
    /// What signs tokens.
    pub token_key: TokenKey,
    /// Where clients find us, if their requests do not say: behind a proxy that speaks TLS for us.
    pub public: Option<Origin>,
}

/// Access control. Clones share everything.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    rules: Rules,
    accounts: Option<AccountsFile>,
    passwords: Passwords,
    token_key: TokenKey,
    public: Option<Origin>,
    clock: Clock,
}

impl Access {
    /// Reads the accounts.
    ///
    /// # Errors
    /// The file of accounts cannot be read or is no good; the message says what to do.
    pub async fn open(settings: Settings, clock: Clock) -> Result<Access, SetupError> {
        let Settings { rules, anonymous, htpasswd, token_key, public } = settings;
        let rules = Rules::new(rules, anonymous);
        for (pattern, account) in rules.blind_pushers() {
            tracing::warn!(pattern, account, "may push and not pull: clients look before they push, and will fail");
        }
        let accounts = match htpasswd {
            Some(path) => {
                let clock = clock.clone();
                Some(task::blocking(move || AccountsFile::open(path, clock)).await?)
            }
            None => None,
        };
        let passwords = Passwords::new(clock.clone())?;
        Ok(Access { inner: Arc::new(Inner { rules, accounts, passwords, token_key, public, clock }) })
    }

    /// Who sends this `Authorization` header. Where nobody has an account, a password says nothing and is not looked at.
    ///
    /// # Errors
    /// What is shown is not right, or cannot be checked now.
    pub async fn identify(&self, authorization: Option<&[u8]>, client: IpAddr) -> Result<Identity, AccessError> {
        match Credential::read(authorization)? {
            Credential::Nothing => Ok(Identity::anonymous()),
            Credential::Password { .. } if self.inner.accounts.is_none() => Ok(Identity::anonymous()),
            Credential::Password { user, password } => {
                self.check(&user, password, client).await?;
                Ok(Identity::account_with_password(&user))
            }
            Credential::Token(token) => {
                let claims = self.believe(&token, Kind::Access).await?;
                Ok(Identity::bearer(claims.sub.as_deref(), claims.access))
            }
        }
    }

    /// Whether someone may do this.
    pub fn may(&self, who: &Identity, repository: &RepoName, action: Action) -> bool {
        self.inner.rules.may(who, repository, action)
    }

    /// What to answer to someone who asks for this.
    ///
    /// Someone who is not known hears the same of every name that is not theirs. Someone who is hears of nothing that
    /// they may not pull.
    pub fn decide(&self, who: &Identity, repository: &RepoName, action: Action) -> Decision {
        let rules = &self.inner.rules;
        if rules.may(who, repository, action) {
            return Decision::Allowed;
        }
        if who.name().is_none() && self.has_accounts() {
            return Decision::Challenge(None);
        }
        if rules.give(who.name(), repository, action) {
            // Only the token is in the way.
            return Decision::Challenge(Some(Fault::InsufficientScope));
        }
        match action {
            Action::Pull => Decision::Hidden,
            Action::Push | Action::Delete if !rules.is_hosted(repository) => Decision::NotHosted,
            Action::Push | Action::Delete if rules.give(who.name(), repository, Action::Pull) => Decision::Denied,
            Action::Push | Action::Delete => Decision::Hidden,
        }
    }

    /// What to answer to `/v2/`: who has no credential is asked for one, if anybody has an account. Else `docker login`
    /// would believe any password, and Docker would never send one.
    pub fn decide_base(&self, who: &Identity) -> Decision {
        if who.has_credential() || !self.has_accounts() { Decision::Allowed } else { Decision::Challenge(None) }
    }

    /// Whether the catalogue shows this name to someone.
    pub fn shows(&self, who: &Identity, repository: &RepoName) -> bool {
        match who.reach() {
            Reach::Granted(grants) if grants.cover_catalog() => {
                self.inner.rules.give(who.name(), repository, Action::Pull)
            }
            _ => self.may(who, repository, Action::Pull),
        }
    }

    /// Whether a name is ours: then it never comes from an upstream.
    pub fn is_hosted(&self, repository: &RepoName) -> bool {
        self.inner.rules.is_hosted(repository)
    }

    /// Whether the mirror's address shows it to anyone, too.
    pub fn is_mirrored(&self, repository: &RepoName) -> bool {
        self.inner.rules.is_mirrored(repository)
    }

    /// Whether a tag keeps its meaning once it is pushed.
    pub fn is_immutable(&self, repository: &RepoName, tag: &Tag) -> bool {
        self.inner.rules.is_immutable(repository, tag)
    }

    /// The patterns of what is hosted, as they were written, for messages.
    pub fn patterns(&self) -> &[String] {
        self.inner.rules.patterns()
    }

    /// Whether anybody has an account.
    pub fn has_accounts(&self) -> bool {
        self.inner.accounts.is_some()
    }

    /// The value of `WWW-Authenticate` on a 401 to a request that came by way of `origin`.
    pub fn challenge(&self, origin: Option<&Origin>, wanted: Wanted<'_>, fault: Option<Fault>) -> String {
        challenge::challenge(self.scheme(), self.inner.public.as_ref().or(origin), wanted, fault)
    }

    /// Which challenge is sent; both kinds of credential are taken all the same.
    pub fn scheme(&self) -> Scheme {
        if self.inner.rules.anonymous() == Anonymous::None { Scheme::Basic } else { Scheme::Bearer }
    }

    /// A token for what of the request is allowed; the rest is left out without a word.
    ///
    /// # Errors
    /// Who asks is not who they say, or cannot be checked now, or asks for another registry's token.
    pub async fn token(&self, request: TokenRequest, client: IpAddr) -> Result<TokenGrant, AccessError> {
        if request.service.as_deref().is_some_and(|service| service != SERVICE) {
            return Err(AccessError::BadRequest("the service is another one's: ask its own token service"));
        }
        let account = self.account_of(request.credential, client).await?;
        let allowed = request.scopes.into_iter().filter_map(|scope| match scope {
            Scope::Repository(name, mut actions) => {
                actions.retain(|action| {
                    self.inner.rules.give(account.as_ref().map(|(name, _)| name.as_str()), &name, *action)
                });
                Some(Scope::Repository(name, actions))
            }
            Scope::Catalog => Some(Scope::Catalog),
            Scope::Foreign => None,
        });
        let grants = Grants::of(allowed);
        let Inner { token_key, clock, .. } = &*self.inner;
        let (scope, now) = (grants.to_string(), clock.unix_seconds());
        let name = account.as_ref().map(|(name, _)| name.clone());
        let account = account.as_ref().map(|(name, password)| (name.as_str(), password.clone()));
        let refresh_token = match &account {
            Some(account) if request.offline => {
                Some(Claims::new(Kind::Refresh, Some(account.clone()), Grants::default(), now)?.sign(token_key)?)
            }
            _ => None,
        };
        let token = Claims::new(Kind::Access, account, grants, now)?.sign(token_key)?;
        Ok(TokenGrant { token, refresh_token, issued_at: clock.wall(), scope, account: name })
    }

    /// The account behind a credential, and the fingerprint of its password; none: nobody's.
    async fn account_of(
        &self,
        credential: Credential,
        client: IpAddr,
    ) -> Result<Option<(String, String)>, AccessError> {
        match credential {
            Credential::Nothing => Ok(None),
            Credential::Password { .. } if self.inner.accounts.is_none() => Ok(None),
            Credential::Password { user, password } => {
                let fingerprint = self.check(&user, password, client).await?;
                Ok(Some((user, fingerprint)))
            }
            Credential::Token(token) => {
                let claims = self.believe(&token, Kind::Refresh).await?;
                Ok(claims.sub.zip(claims.pwd))
            }
        }
    }

    /// Checks a password, and gives its fingerprint.
    async fn check(&self, user: &str, password: Secret, client: IpAddr) -> Result<String, AccessError> {
        let accounts = self.inner.accounts.as_ref().ok_or(AccessError::WrongPassword)?.current().await;
        let hash = accounts.get(user).cloned();
        let question =
            Question { user: user.to_owned(), password, hash: hash.clone(), highest_cost: accounts.highest_cost() };
        match (self.inner.passwords.check(question, client).await?, hash) {
            (true, Some(hash)) => Ok(self.inner.token_key.fingerprint([user, hash.expose()])),
            _ => Err(AccessError::WrongPassword),
        }
    }

    /// What a token says, if it is good and its account is what it was.
    async fn believe(&self, token: &Secret, kind: Kind) -> Result<Claims, AccessError> {
        let inner = &self.inner;
        let claims = Claims::verify(token, kind, &inner.token_key, inner.clock.unix_seconds())?;
        if let Some(name) = &claims.sub {
            let accounts = inner.accounts.as_ref().ok_or(AccessError::InvalidToken)?.current().await;
            let hash = accounts.get(name).ok_or(AccessError::InvalidToken)?;
            if claims.pwd != Some(inner.token_key.fingerprint([name, hash.expose()])) {
                return Err(AccessError::InvalidToken);
            }
        }
        Ok(claims)
    }
}
