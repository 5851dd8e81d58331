//! Tokens of our own: what they say, signing them, and believing them again. Never asks who may: a token only lists.
//!
//! `base64url(claims).base64url(hmac)`, not a JWT. Clients treat a token as opaque, and what makes a JWT dangerous is its
//! header, in which the sender names the algorithm and the key: there is none here, so nothing can be swapped. The MAC is
//! checked, in constant time, before a byte of the claims is read.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::challenge::SERVICE;
use super::error::AccessError;
use super::scope::Grants;
use crate::secret::Secret;

/// What a token is good for. The rules and the account are asked on every use, so this bounds only what a stolen one is
/// worth.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// What a refresh token is good for; a new password ends it at once.
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far our own clock may have gone back since a token was made; and how much longer than its client was told it is
/// believed. Docker and Podman use a token to its last moment by their own clock, and give a push up when it
/// comes too late.
pub const SKEW: Duration = Duration::from_secs(60);
/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// Set before what is signed: no other use of the key can give a MAC that is good here.
const PURPOSE: &[u8] = b"larder token 1\0";

/// The key that signs. 32 bytes from the system; who has it can be anybody.
#[derive(Clone)]
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// How many bytes a key has.
    pub const LENGTH: usize = 32;

    /// The key with these bytes.
    pub fn from_bytes(bytes: &[u8; TokenKey::LENGTH]) -> TokenKey {
        TokenKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A short name for a text that only who has the key can make.
    pub(super) fn fingerprint(&self, parts: [&str; 2]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"larder account 1\0");
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..16])
    }

    fn sign(&self, payload: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(PURPOSE);
        context.update(payload);
        context.sign()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Requests.
    Access,
    /// Getting tokens.
    Refresh,
}

/// What a token says. The names are those of the Docker token specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// What it is for.
    pub kind: Kind,
    /// For whom it is meant: us.
    pub aud: String,
    /// Whose account asked for it; none: nobody's.
    pub sub: Option<String>,
    /// What that account's password was then.
    pub pwd: Option<String>,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it begins.
    pub nbf: u64,
    /// When it ends.
    pub exp: u64,
    /// Its own number.
    pub jti: String,
    /// What it lists.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub access: Grants,
}

impl Claims {
    /// Of a token that is made now.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(kind: Kind, account: Option<(&str, String)>, access: Grants, now: u64) -> Result<Claims, AccessError> {
        let mut number = [0; 16];
        SystemRandom::new().fill(&mut number).map_err(|_| AccessError::Unavailable)?;
        let lifetime = match kind {
            Kind::Access => LIFETIME,
            Kind::Refresh => REFRESH_LIFETIME,
        };
        let (sub, pwd) = account.map(|(name, password)| (name.to_owned(), password)).unzip();
        Ok(Claims {
            kind,
            aud: SERVICE.to_owned(),
            sub,
            pwd,
            iat: now,
            nbf: now,
            exp: now + lifetime.as_secs(),
            jti: URL_SAFE_NO_PAD.encode(number),
            access,
        })
    }

    /// The token.
    pub fn sign(&self, key: &TokenKey) -> Result<Secret, AccessError> {
        let claims = serde_json::to_vec(self).map_err(|_| AccessError::Unavailable)?;
        let payload = URL_SAFE_NO_PAD.encode(claims);
        let mac = URL_SAFE_NO_PAD.encode(key.sign(payload.as_bytes()));
        Ok(Secret::new(format!("{payload}.{mac}")))
    }

    /// What a token says, if it is ours, of this kind, and good at `now`.
    ///
    /// # Errors
    /// It is not; nobody learns why.
    pub fn verify(token: &Secret, kind: Kind, key: &TokenKey, now: u64) -> Result<Claims, AccessError> {
        let claims = Claims::signed(token.expose(), key).ok_or(AccessError::InvalidToken)?;
        let in_time = claims.nbf <= now + SKEW.as_secs() && now < claims.exp + SKEW.as_secs();
        if claims.kind == kind && claims.aud == SERVICE && in_time {
            Ok(claims)
        } else {
            Err(AccessError::InvalidToken)
        }
    }

    fn signed(token: &str, key: &TokenKey) -> Option<Claims> {
        let (payload, mac) = token.split_once('.').filter(|_| token.len() <= MAX_TOKEN)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let message = [PURPOSE, payload.as_bytes()].concat();
        hmac::verify(&key.0, &message, &mac).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(byte: u8) -> TokenKey {
        TokenKey::from_bytes(&[byte; 32])
    }

    fn claims(kind: Kind) -> Claims {
        let access = Grants::of(["repository:team/app:pull,push".parse().unwrap()]);
        Claims::new(kind, Some(("ann", "print".to_owned())), access, NOW).unwrap()
    }

    fn verify(token: &str, now: u64) -> Result<Claims, AccessError> {
        Claims::verify(&Secret::new(token), Kind::Access, &key(1), now)
    }

    #[test]
    fn a_token_says_what_was_put_into_it_until_it_ends() {
        let claims = claims(Kind::Access);
        let token = claims.sign(&key(1)).unwrap();
        for now in [NOW - 60, NOW, NOW + 299, NOW + 359] {
            assert_eq!(verify(token.expose(), now), Ok(claims.clone()), "{now}");
        }
        for now in [0, NOW - 61, NOW + 360, NOW + 1_000_000] {
            assert_eq!(verify(token.expose(), now), Err(AccessError::InvalidToken), "{now}");
        }
    }

    #[test]
    fn a_token_of_another_key_kind_or_audience_is_none() {
        let good = claims(Kind::Access);
        assert!(verify(good.sign(&key(2)).unwrap().expose(), NOW).is_err());
        assert!(verify(claims(Kind::Refresh).sign(&key(1)).unwrap().expose(), NOW).is_err());
        let elsewhere = Claims { aud: "registry.example".into(), ..good };
        assert!(verify(elsewhere.sign(&key(1)).unwrap().expose(), NOW).is_err());
    }

    #[test]
    fn nothing_that_a_jwt_could_be_talked_into_is_a_token() {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let ours = claims(Kind::Access);
        let payload = encode(&serde_json::to_string(&ours).unwrap());
        let signed = ours.sign(&key(1)).unwrap();
        let mac = signed.expose().split_once('.').unwrap().1;
        let plain_mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), payload.as_bytes());
        let mut forged = vec![
            String::new(),
            ".".into(),
            payload.clone(),
            format!("{payload}."),
            format!(".{mac}"),
            format!("{payload}.{}", URL_SAFE_NO_PAD.encode(plain_mac)),
            format!("{payload}.{}", &mac[..mac.len() - 2]),
            format!("{payload}.{mac}="),
            format!("{payload}.{mac}.{mac}"),
            format!("{mac}.{payload}"),
            "a".repeat(1 << 20),
        ];
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256","typ":"JWT"}"#,
            r#"{"alg":"RS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
            r#"{"alg":"HS256","kid":"../../dev/null"}"#,
            r#"{"alg":"HS256","jku":"http://169.254.169.254/"}"#,
            r#"{"alg":"HS256","x5c":["AAAA"]}"#,
        ] {
            let start = format!("{}.{payload}", encode(header));
            let with_ours = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), start.as_bytes());
            forged.extend([format!("{start}."), format!("{start}.{mac}")]);
            forged.push(format!("{start}.{}", URL_SAFE_NO_PAD.encode(with_ours)));
        }
        for token in forged {
            assert_eq!(verify(&token, NOW), Err(AccessError::InvalidToken), "{token:.60}");
        }
    }

    #[test]
    fn a_fingerprint_tells_accounts_and_passwords_apart() {
        let of = |name, hash| key(1).fingerprint([name, hash]);
        assert_eq!(of("ann", "x"), of("ann", "x"));
        for other in [of("ann", "y"), of("bob", "x"), of("annx", ""), key(2).fingerprint(["ann", "x"])] {
            assert_ne!(of("ann", "x"), other);
        }
    }

    proptest! {
        #[test]
        fn a_token_with_any_bit_turned_is_none(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let mut token = claims(Kind::Access).sign(&key(1)).unwrap().expose().as_bytes().to_vec();
            let at = at.index(token.len());
            token[at] ^= 1 << bit;
            if let Ok(token) = String::from_utf8(token) {
                prop_assert_eq!(verify(&token, NOW), Err(AccessError::InvalidToken));
            }
        }
    }
}
