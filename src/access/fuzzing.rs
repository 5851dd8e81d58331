//! What someone's claim to be let in passes through, for who makes random ones.

use super::credential::Credential;
use super::htpasswd::{Accounts, with_account, without_account};
use super::request::TokenRequest;
use super::scope::{Grants, Scope};
use super::token::{Claims, Kind, TokenKey};
use crate::secret::Secret;

/// A scope: what is granted of it says the same when it is read again.
pub fn scope(text: &str) {
    let Ok(scope) = text.parse::<Scope>() else { return };
    let grants = Grants::of([scope]);
    if !grants.is_empty() {
        assert_eq!(grants.to_string().parse().map(|scope| Grants::of([scope])), Ok(grants));
    }
}

/// A file of accounts: refused, or one that can be edited.
pub fn htpasswd(text: &str) {
    let Ok(accounts) = Accounts::parse(text) else { return };
    let Some((name, hash)) = accounts.iter().next() else { return };
    assert_eq!(Accounts::parse(&with_account(text, name, hash.expose())).as_ref(), Ok(&accounts));
    let without = without_account(text, name).and_then(|text| Accounts::parse(&text).ok());
    assert!(without.is_some_and(|rest| rest.get(name).is_none() && rest.iter().count() + 1 == accounts.iter().count()));
}

/// An `Authorization` header, and a token: nobody guesses one.
pub fn authorization(header: &[u8]) {
    if let Ok(Credential::Token(token)) = Credential::read(Some(header)) {
        assert!(Claims::verify(&token, Kind::Access, &TokenKey::from_bytes(&[7; 32]), 1_800_000_000).is_err());
    }
    let text = Secret::new(String::from_utf8_lossy(header));
    assert!(Claims::verify(&text, Kind::Refresh, &TokenKey::from_bytes(&[7; 32]), 1_800_000_000).is_err());
}

/// A request for a token, as a query and as a form.
pub fn token_request(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = TokenRequest::from_query(Some(text), None);
    }
    let _ = TokenRequest::from_form(bytes);
}
