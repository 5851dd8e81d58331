//! Who is let through the registry's door: a credential becomes someone, and what they may becomes an answer.
//!
//! What one may not see cannot be told from what does not exist: the same code, the same words.

use std::net::SocketAddr;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use crate::access::{Access, AccessError, Action, Decision, Fault, Identity, Origin, Wanted};
use crate::hosted::HostedError;
use crate::http::error::ApiError;
use crate::oci::{ErrorCode, RepoName};
use crate::server::Peer;

/// Whoever asks, and how they reached us.
pub struct Asker<'a> {
    access: &'a Access,
    origin: Option<Origin>,
    client: SocketAddr,
    /// Who it is.
    pub who: Identity,
}

impl<'a> Asker<'a> {
    /// Finds out who sends these headers; `wanted` is what the challenge is about if that is not to be found out.
    pub async fn identify(
        access: &'a Access,
        headers: &HeaderMap,
        peer: &Peer,
        wanted: Wanted<'_>,
    ) -> Result<Asker<'a>, ApiError> {
        let origin = headers.get(header::HOST).and_then(|host| Origin::new(peer.tls, host.to_str().ok()?));
        let mut asker = Asker { access, origin, client: peer.address, who: Identity::anonymous() };
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let identified = match (shown.next(), shown.next()) {
            (Some(_), Some(_)) => Err(AccessError::Malformed),
            (header, _) => access.identify(header.map(|header| header.as_bytes()), asker.client.ip()).await,
        };
        match identified {
            Ok(who) => asker.who = who,
            Err(error) => return Err(asker.not_identified(error, wanted)),
        }
        Ok(asker)
    }

    /// Whether they may ask for `/v2/`. With accounts nobody may without one: else `docker login` would take any password
    /// for right, and Docker would never send one.
    pub fn may_enter(&self) -> Result<(), ApiError> {
        match self.access.decide_base(&self.who) {
            Decision::Allowed => Ok(()),
            _ => Err(self.unauthorized(Wanted::Base, None)),
        }
    }

    /// Whether they may look at the catalogue. Someone without a name sees in it what everybody may pull, if that is
    /// anything.
    pub fn may_list(&self) -> Result<(), ApiError> {
        let nothing_for_all = self.access.scheme() == crate::access::Scheme::Basic;
        if nothing_for_all && self.access.has_accounts() && !self.who.has_credential() {
            return Err(self.unauthorized(Wanted::Catalog, None));
        }
        Ok(())
    }

    /// Whether they may do this.
    pub fn may(&self, name: &RepoName, action: Action) -> Result<(), ApiError> {
        match self.access.decide(&self.who, name, action) {
            Decision::Allowed => Ok(()),
            Decision::Challenge(fault) => Err(self.unauthorized(Wanted::Repository(name, action), fault)),
            Decision::Denied => {
                let message = format!("you may not {} here: ask who runs this registry", action.as_str());
                Err(ApiError::new(ErrorCode::Denied, message))
            }
            Decision::NotHosted => Err(ApiError::not_hosted(self.access.patterns())),
            Decision::Hidden => Err(ApiError::from_hosted(HostedError::NoRepository)),
        }
    }

    /// Under which name their uploads are kept apart from others'; empty for someone without one.
    pub fn owner(&self) -> String {
        self.who.name().unwrap_or_default().to_owned()
    }

    fn unauthorized(&self, wanted: Wanted<'_>, fault: Option<Fault>) -> ApiError {
        self.challenged("log in: this registry wants to know who asks", wanted, fault)
    }

    fn challenged(&self, message: &str, wanted: Wanted<'_>, fault: Option<Fault>) -> ApiError {
        let challenge = self.access.challenge(self.origin.as_ref(), wanted, fault);
        ApiError::new(ErrorCode::Unauthorized, message).with(header::WWW_AUTHENTICATE, challenge)
    }

    fn not_identified(&self, error: AccessError, wanted: Wanted<'_>) -> ApiError {
        let fault = matches!(error, AccessError::InvalidToken).then_some(Fault::InvalidToken);
        match error {
            AccessError::Malformed | AccessError::WrongPassword | AccessError::InvalidToken => {
                self.challenged(&error.to_string(), wanted, fault)
            }
            other => refused(&other),
        }
    }
}

/// What a credential that cannot be looked at is told.
pub fn refused(error: &AccessError) -> ApiError {
    let message = error.to_string();
    match error {
        AccessError::Malformed | AccessError::BadRequest(_) => ApiError::bad_request(&message),
        AccessError::WrongPassword | AccessError::InvalidToken => ApiError::new(ErrorCode::Unauthorized, message),
        AccessError::TooMany { retry_after } => {
            ApiError { retry_after: Some(*retry_after), ..ApiError::new(ErrorCode::TooManyRequests, message) }
        }
        AccessError::Unavailable => {
            ApiError::new(ErrorCode::Unavailable, message).status(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}
