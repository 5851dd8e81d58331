//! What is asked of the token endpoint: by GET (the Docker token specification) or by POST (its OAuth2 form). Pure.
//!
//! Parameters that mean nothing here are ignored; so is a scope that is none, as every token service does it: it grants
//! nothing. Of a parameter given twice the first counts, but for `scope`.

use percent_encoding::percent_decode_str;

use super::credential::Credential;
use super::error::AccessError;
use super::scope::{MAX_SCOPES, Scope};
use crate::secret::Secret;

/// Longest query or form that is read, in bytes.
pub const MAX_REQUEST: usize = 64 << 10;

/// A request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Who asks.
    pub credential: Credential,
    /// For which registry, if that was said.
    pub service: Option<String>,
    /// What the token should list; nothing: it says only who asks, as for `docker login`.
    pub scopes: Vec<Scope>,
    /// Whether a refresh token is wanted, too.
    pub offline: bool,
}

impl TokenRequest {
    /// Reads a GET: its query, and its `Authorization` header, if there is one.
    ///
    /// # Errors
    /// The query or the header is not well-formed.
    pub fn from_query(query: Option<&str>, authorization: Option<&[u8]>) -> Result<TokenRequest, AccessError> {
        let fields = Fields::read(query.unwrap_or_default())?;
        let credential = match Credential::read(authorization)? {
            // A token is not what one gets tokens for.
            Credential::Token(_) => return Err(AccessError::Malformed),
            other => other,
        };
        Ok(fields.into_request(credential))
    }

    /// Reads a POST's body, a form. Its `Authorization` header does not count: the form says who asks.
    ///
    /// # Errors
    /// The form is not well-formed, or asks for something else than a token by password or refresh token.
    pub fn from_form(body: &[u8]) -> Result<TokenRequest, AccessError> {
        let text = std::str::from_utf8(body).map_err(|_| NOT_A_FORM)?;
        let mut fields = Fields::read(text)?;
        let credential = match fields.grant_type.take().as_deref() {
            Some("password") => match (fields.username.take(), fields.password.take()) {
                (Some(user), Some(password)) if !user.is_empty() => Credential::Password { user, password },
                _ => return Err(AccessError::BadRequest("grant_type=password needs a username and a password")),
            },
            Some("refresh_token") => {
                let token = fields.refresh_token.take().filter(|token| !token.expose().is_empty());
                Credential::Token(token.ok_or(AccessError::BadRequest("there is no refresh_token in the form"))?)
            }
            _ => return Err(AccessError::BadRequest("grant_type must be password or refresh_token")),
        };
        Ok(fields.into_request(credential))
    }
}

const NOT_A_FORM: AccessError = AccessError::BadRequest("not a form: write it as name=value&name=value, in UTF-8");

#[derive(Default)]
struct Fields {
    grant_type: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    refresh_token: Option<Secret>,
    service: Option<String>,
    offline_token: Option<String>,
    access_type: Option<String>,
    scopes: Vec<Scope>,
}

impl Fields {
    fn read(text: &str) -> Result<Fields, AccessError> {
        if text.len() > MAX_REQUEST {
            return Err(AccessError::BadRequest("the request is too long"));
        }
        let mut fields = Fields::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "grant_type" => first(&mut fields.grant_type, value, |text| text)?,
                "username" => first(&mut fields.username, value, |text| text)?,
                "password" => first(&mut fields.password, value, Secret::new)?,
                "refresh_token" => first(&mut fields.refresh_token, value, Secret::new)?,
                "service" => first(&mut fields.service, value, |text| text)?,
                "offline_token" => first(&mut fields.offline_token, value, |text| text)?,
                "access_type" => first(&mut fields.access_type, value, |text| text)?,
                "scope" => {
                    let value = decode(value)?;
                    let left = MAX_SCOPES.saturating_sub(fields.scopes.len());
                    fields.scopes.extend(value.split(' ').filter_map(|scope| scope.parse().ok()).take(left));
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn into_request(self, credential: Credential) -> TokenRequest {
        let offline = self.offline_token.as_deref() == Some("true") || self.access_type.as_deref() == Some("offline");
        let service = self.service.filter(|service| !service.is_empty());
        TokenRequest { credential, service, scopes: self.scopes, offline }
    }
}

fn first<T>(slot: &mut Option<T>, value: &str, make: impl Fn(String) -> T) -> Result<(), AccessError> {
    if slot.is_none() {
        *slot = Some(make(decode(value)?));
    }
    Ok(())
}

fn decode(value: &str) -> Result<String, AccessError> {
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned()).map_err(|_| NOT_A_FORM)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.into(), password: Secret::new(password) }
    }

    fn scopes(texts: &[&str]) -> Vec<Scope> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_docker_login_asks_for_no_scope() {
        let query = "account=ann&client_id=docker&offline_token=true&service=larder";
        let request = TokenRequest::from_query(Some(query), Some(b"Basic YW5uOnNlY3JldA==")).unwrap();
        assert_eq!(
            request,
            TokenRequest {
                credential: password("ann", "secret"),
                service: Some("larder".into()),
                scopes: vec![],
                offline: true
            }
        );
    }

    #[test]
    fn scopes_come_as_several_parameters_or_as_one() {
        let wanted = scopes(&["repository:a/b:pull,push", "repository:c:pull"]);
        let get = "service=s&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository:c:pull&scope=";
        let request = TokenRequest::from_query(Some(get), None).unwrap();
        assert_eq!((request.credential, &request.scopes), (Credential::Nothing, &wanted));
        let form = "grant_type=password&username=ann&password=a%26b+c&client_id=containerd-client&service=s\
                    &scope=repository%3Aa%2Fb%3Apull%2Cpush+repository%3Ac%3Apull";
        let request = TokenRequest::from_form(form.as_bytes()).unwrap();
        assert_eq!((request.credential, &request.scopes), (password("ann", "a&b c"), &wanted));
        assert!(!request.offline);
        let many = "scope=repository:a:pull&".repeat(MAX_SCOPES + 5);
        assert_eq!(TokenRequest::from_query(Some(&many), None).unwrap().scopes.len(), MAX_SCOPES);
        assert!(TokenRequest::from_query(None, None).unwrap().scopes.is_empty());
    }

    #[test]
    fn a_refresh_token_stands_for_the_password() {
        let form = b"grant_type=refresh_token&refresh_token=r.t&access_type=offline&scope=nonsense+repository:c:pull";
        let request = TokenRequest::from_form(form).unwrap();
        assert_eq!(request.credential, Credential::Token(Secret::new("r.t")));
        assert_eq!((request.scopes, request.offline), (scopes(&["repository:c:pull"]), true));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for form in [
            "",
            "grant_type=",
            "grant_type=client_credentials",
            "grant_type=password",
            "grant_type=password&username=ann",
            "grant_type=password&username=&password=x",
            "grant_type=refresh_token",
            "grant_type=refresh_token&refresh_token=",
            "grant_type=password&username=%ff&password=x",
        ] {
            assert!(matches!(TokenRequest::from_form(form.as_bytes()), Err(AccessError::BadRequest(_))), "{form}");
        }
        assert_eq!(TokenRequest::from_form(b"\xff"), Err(NOT_A_FORM));
        let long = "a".repeat(MAX_REQUEST + 1);
        assert!(TokenRequest::from_query(Some(&long), None).is_err());
        assert_eq!(TokenRequest::from_query(None, Some(b"Bearer x")), Err(AccessError::Malformed));
    }

    #[test]
    fn a_debug_print_shows_no_secret() {
        let form = b"grant_type=password&username=ann&password=hunter2";
        assert!(!format!("{:?}", TokenRequest::from_form(form)).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_request_is_read_without_a_panic(text in "(grant_type|=|&|password|%|%ff|\\+|scope|refresh_token|é){0,20}") {
            let _ = TokenRequest::from_form(text.as_bytes());
            let _ = TokenRequest::from_query(Some(&text), None);
        }
    }
}
