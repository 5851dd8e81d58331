//! Who asks, as far as it is known. Made only by this room: whoever holds one has it from a checked credential.

use super::scope::Grants;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    account: Option<Box<str>>,
    reach: Reach,
}

/// How far the credential that was shown reaches. The rules are asked besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No credential, or a password: as far as the rules go.
    Everything,
    /// A token: what it lists.
    Granted(Grants),
}

impl Identity {
    /// Someone who has shown nothing.
    pub fn anonymous() -> Identity {
        Identity { account: None, reach: Reach::Everything }
    }

    /// Someone who has shown an account's password.
    pub(super) fn account_with_password(name: &str) -> Identity {
        Identity { account: Some(name.into()), reach: Reach::Everything }
    }

    /// Someone who has shown a token of ours, which an account has asked for, or nobody.
    pub(super) fn bearer(account: Option<&str>, grants: Grants) -> Identity {
        Identity { account: account.map(Into::into), reach: Reach::Granted(grants) }
    }

    /// Whose account it is; none: someone without one.
    pub fn name(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// How far the credential reaches.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Whether a credential was shown, if only the token that everybody gets.
    pub fn has_credential(&self) -> bool {
        self.account.is_some() || self.reach != Reach::Everything
    }
}
