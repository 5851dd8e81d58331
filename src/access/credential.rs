//! Reading `Authorization` (RFC 7617, RFC 6750). Pure: whether a credential is right is decided elsewhere.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::error::AccessError;
use crate::secret::Secret;

/// Longest header that is read, in bytes: a token with as many scopes as we give.
pub const MAX_HEADER: usize = 16 << 10;
/// As clients write it: most with padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What someone shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing. Podman says so by a Basic header with neither name nor password.
    Nothing,
    /// An account's name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

impl Credential {
    /// Reads a header's value; none: there is no header.
    ///
    /// # Errors
    /// It is neither Basic nor Bearer, or not well-formed.
    pub fn read(header: Option<&[u8]>) -> Result<Credential, AccessError> {
        let Some(header) = header else { return Ok(Credential::Nothing) };
        let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= MAX_HEADER);
        let (scheme, rest) = text.and_then(|text| text.trim().split_once(' ')).ok_or(AccessError::Malformed)?;
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("basic") {
            basic(rest)
        } else if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() && !rest.contains(' ') {
            Ok(Credential::Token(Secret::new(rest)))
        } else {
            Err(AccessError::Malformed)
        }
    }
}

fn basic(text: &str) -> Result<Credential, AccessError> {
    let decoded = BASE64.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = Secret::new(decoded.ok_or(AccessError::Malformed)?);
    match decoded.expose().split_once(':') {
        Some(("", "")) => Ok(Credential::Nothing),
        Some((user, password)) if !user.is_empty() => {
            Ok(Credential::Password { user: user.to_owned(), password: Secret::new(password) })
        }
        _ => Err(AccessError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn password(user: &str, password: &str) -> Result<Credential, AccessError> {
        Ok(Credential::Password { user: user.into(), password: Secret::new(password) })
    }

    #[test]
    fn what_clients_send_is_read() {
        let read = |text: &str| Credential::read(Some(text.as_bytes()));
        assert_eq!(Credential::read(None), Ok(Credential::Nothing));
        assert_eq!(read("Basic Og=="), Ok(Credential::Nothing));
        assert_eq!(read("Basic YW5uOnNlY3JldA=="), password("ann", "secret"));
        assert_eq!(read("basic  YW5uOnNlY3JldA"), password("ann", "secret"));
        assert_eq!(read("BASIC YW5uOmE6Yg== "), password("ann", "a:b"));
        assert_eq!(read("Basic YW5uOg=="), password("ann", ""));
        assert_eq!(read("Bearer a.b"), Ok(Credential::Token(Secret::new("a.b"))));
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        let long = format!("Bearer {}", "a".repeat(1 << 20));
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic !!!!",
            "Basic YW5u",
            "Basic OnNlY3JldA==",
            "Basic //86YQ==",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Digest username=\"ann\"",
            "Negotiate YII=",
            "YW5uOnNlY3JldA==",
            "Basic YW5uOnNlY3JldA==, Bearer x",
            "Bearer a\u{e9}b c",
            &long,
        ] {
            assert_eq!(Credential::read(Some(bad.as_bytes())), Err(AccessError::Malformed), "{bad:.40}");
        }
        assert_eq!(Credential::read(Some(b"Bearer \xff")), Err(AccessError::Malformed));
    }

    #[test]
    fn a_debug_print_shows_no_secret() {
        for header in ["Basic YW5uOnNlY3JldA==", "Bearer secret"] {
            assert!(!format!("{:?}", Credential::read(Some(header.as_bytes()))).contains("secret"));
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(header in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Credential::read(Some(&header));
        }

        #[test]
        fn what_is_written_is_what_is_read(user in "[^:\\x00]{1,10}", secret in "\\PC{0,20}") {
            let header = format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
            prop_assert_eq!(Credential::read(Some(header.as_bytes())), password(&user, &secret));
        }
    }
}
