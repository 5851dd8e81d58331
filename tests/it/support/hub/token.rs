//! The token service, and the registry's side of it: challenges, and what a token is good for.

use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::json;

use super::reply::Reply;
use super::seen::Seen;
use super::serve::{Shared, random};

/// What every challenge names.
pub const SERVICE: &str = "registry.docker.io";

/// The token endpoint: GET with or without Basic.
pub fn answer(shared: &Shared, seen: &Seen) -> Reply {
    let settings = shared.settings.lock().unwrap().clone();
    let account = match seen.header(AUTHORIZATION).map(|value| value.strip_prefix("Basic ").unwrap_or_default()) {
        None => false,
        Some(given) => {
            let known = |(user, password): (&String, &String)| base64(format!("{user}:{password}").as_bytes()) == given;
            if !settings.accounts.iter().any(known) {
                return Reply::new(401, "application/json", r#"{"details":"incorrect username or password"}"#);
            }
            true
        }
    };
    if seen.query("service").is_none_or(|service| service != SERVICE) {
        return Reply::new(400, "application/json", r#"{"details":"unknown service"}"#);
    }
    let content = shared.content.lock().unwrap();
    let granted = seen.queries("scope").into_iter().flat_map(|scope| {
        scope
            .split(' ')
            .filter_map(|scope| scope.strip_prefix("repository:")?.strip_suffix(":pull").map(str::to_owned))
            .collect::<Vec<_>>()
    });
    // What may not be had is silently left out.
    let granted = granted.filter(|name| content.repos.get(name).is_some_and(|repo| account || !repo.private)).collect();
    let token = random();
    let mut body = json!({"issued_at": "2026-01-01T00:00:00Z"});
    if settings.says_token {
        body["token"] = json!(token);
    }
    if settings.says_access_token {
        body["access_token"] = json!(token);
    }
    if let Some(seconds) = settings.expires_in {
        body["expires_in"] = json!(seconds);
    }
    shared.tokens.lock().unwrap().insert(token, granted);
    Reply::new(200, "application/json", body.to_string())
}

/// The challenge that a request gets which may not read `repo`, or, without one, anything.
pub fn refusal(shared: &Shared, seen: &Seen, repo: Option<&str>) -> Option<Reply> {
    let tokens = shared.tokens.lock().unwrap();
    let given = seen.header(AUTHORIZATION);
    let token = given.map(|value| value.strip_prefix("Bearer ").unwrap_or_default());
    let error = match token.map(|token| tokens.get(token)) {
        None => "",
        Some(None) => ",error=\"invalid_token\"",
        Some(Some(granted)) if repo.is_none_or(|repo| granted.contains(repo)) => return None,
        Some(Some(_)) => ",error=\"insufficient_scope\"",
    };
    let scope = repo.map_or(String::new(), |repo| format!(",scope=\"repository:{repo}:pull\""));
    let challenge = format!("Bearer realm=\"{}\",service=\"{SERVICE}\"{scope}{error}", shared.names.realm);
    let mut reply = Reply::error(401, "UNAUTHORIZED", "authentication required").with(WWW_AUTHENTICATE, &challenge);
    reply.challenge = true;
    Some(reply)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (n, byte)| word | u32::from(*byte) << (16 - 8 * n));
        for n in 0..4 {
            let sextet = (word >> (18 - 6 * n)) & 63;
            text.push(if n <= chunk.len() { ALPHABET[sextet as usize] as char } else { '=' });
        }
    }
    text
}
