//! A token, and the service that gives it (the Docker token specification; protocol 2.2). Pure: asks nobody.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::settings::Account;
use crate::oci::RepoName;

/// Largest answer of a token service that is read; Docker Hub's has some 5 KiB.
pub const MAX_ANSWER: usize = 64 << 10;
/// What a token lives that does not say, or says less.
const SHORTEST: Duration = Duration::from_secs(60);
/// No token is believed to live longer.
const LONGEST: Duration = Duration::from_secs(3600);
/// When to try again after a token could not be replaced while it still lives.
const AGAIN: Duration = Duration::from_secs(10);

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenService {
    /// Its URL, checked.
    pub realm: Uri,
    /// What it calls the registry.
    pub service: Option<String>,
}

impl TokenService {
    /// What to ask for leave to pull from `repo`. The scope is ours: a registry cannot make us ask for more.
    pub fn url(&self, repo: &RepoName, account: Option<&Account>) -> Option<Uri> {
        let mut url = self.realm.to_string();
        let mut add = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.extend([name, "="]);
            url.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        };
        if let Some(service) = &self.service {
            add("service", service);
        }
        add("scope", &format!("repository:{repo}:pull"));
        if let Some(account) = account {
            add("account", &account.username);
            add("client_id", "larder");
        }
        url.parse().ok()
    }
}

/// User name and password as a header.
pub fn basic(account: &Account) -> Option<HeaderValue> {
    secret_header("Basic", &STANDARD.encode(format!("{}:{}", account.username, account.password.expose())))
}

fn secret_header(scheme: &str, secret: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {secret}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Leave to pull from one repository, for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What to send.
    pub header: HeaderValue,
    /// When it was asked for.
    pub asked: Instant,
    due: Instant,
    expires: Instant,
}

#[derive(Deserialize)]
struct Document {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

impl Token {
    /// Reads a token service's answer to a question of `asked`.
    pub fn read(answer: &[u8], asked: Instant) -> Result<Token, &'static str> {
        let document: Document = serde_json::from_slice(answer).map_err(|_| "it is not JSON with a token")?;
        let text = document.token.filter(|token| !token.is_empty()).or(document.access_token);
        let text = text.filter(|token| !token.is_empty()).ok_or("there is no token in it")?;
        let header = secret_header("Bearer", &text).ok_or("its token has characters that no header can hold")?;
        let seconds = document.expires_in.unwrap_or_default().clamp(SHORTEST.as_secs_f64(), LONGEST.as_secs_f64());
        let lifetime = Duration::from_secs_f64(seconds);
        Ok(Token { header, asked, due: asked + lifetime.mul_f64(0.8), expires: asked + lifetime })
    }

    /// Whether it is time for another one.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// This token for a little longer, if it still lives: its successor could not be had.
    pub fn kept(self, now: Instant) -> Option<Token> {
        (now < self.expires).then_some(Token { due: self.expires.min(now + AGAIN), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::secret::Secret;

    fn account() -> Account {
        Account { username: "me & you".into(), password: Secret::new("hunter2") }
    }

    #[test]
    fn the_question_is_ours() {
        let repo: RepoName = "library/alpine".parse().unwrap();
        let mut service = TokenService {
            realm: "https://auth.docker.io/token".parse().unwrap(),
            service: Some("registry.docker.io&scope=x".into()),
        };
        assert_eq!(
            service.url(&repo, None).unwrap().to_string(),
            "https://auth.docker.io/token?service=registry%2Edocker%2Eio%26scope%3Dx&scope=repository%3Alibrary%2Falpine%3Apull"
        );
        service = TokenService { realm: "https://auth.docker.io/token?a=b".parse().unwrap(), service: None };
        assert_eq!(
            service.url(&repo, Some(&account())).unwrap().to_string(),
            "https://auth.docker.io/token?a=b&scope=repository%3Alibrary%2Falpine%3Apull&account=me%20%26%20you&client_id=larder"
        );
    }

    #[test]
    fn a_credential_is_not_printed() {
        let basic = basic(&account()).unwrap();
        assert_eq!(basic.as_bytes(), b"Basic bWUgJiB5b3U6aHVudGVyMg==");
        assert_eq!(format!("{basic:?}"), "Sensitive");
        let token = Token::read(br#"{"token":"t0"}"#, Clock::system().tick()).unwrap();
        assert_eq!(format!("{:?}", token.header), "Sensitive");
    }

    #[test]
    fn a_token_is_replaced_before_it_dies() {
        let asked = Clock::system().tick();
        let after = |seconds| asked + Duration::from_secs(seconds);
        for (expires_in, due) in
            [(r#","expires_in":300"#, 240), ("", 48), (r#","expires_in":5"#, 48), (r#","expires_in":-1"#, 48)]
        {
            let token = Token::read(format!(r#"{{"token":"t"{expires_in}}}"#).as_bytes(), asked).unwrap();
            assert!(!token.is_due(after(due - 1)) && token.is_due(after(due)), "{expires_in}");
        }
        let forever = Token::read(br#"{"token":"t","expires_in":1e300}"#, asked).unwrap();
        assert!(forever.is_due(after(3600)));
    }

    #[test]
    fn a_token_outlives_its_service_until_it_expires() {
        let asked = Clock::system().tick();
        let after = |seconds| asked + Duration::from_secs(seconds);
        let token = Token::read(br#"{"access_token":"t","expires_in":300}"#, asked).unwrap();
        let kept = token.clone().kept(after(250)).unwrap();
        assert!(!kept.is_due(after(259)) && kept.is_due(after(260)));
        assert!(kept.kept(after(295)).unwrap().is_due(after(300)));
        assert!(token.kept(after(300)).is_none());
    }

    #[test]
    fn either_name_will_do_and_nothing_else() {
        let now = Clock::system().tick();
        for good in [r#"{"token":"t"}"#, r#"{"access_token":"t","token":null}"#, r#"{"token":"","access_token":"t"}"#] {
            assert_eq!(Token::read(good.as_bytes(), now).map(|token| token.header).unwrap(), "Bearer t");
        }
        for bad in ["", "<html>", "[]", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":7}"#] {
            assert!(Token::read(bad.as_bytes(), now).is_err(), "{bad}");
        }
    }
}
