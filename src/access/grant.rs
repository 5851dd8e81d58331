//! A token as it is handed out. Never shows one in a debug print.

use std::time::SystemTime;

use serde::Serialize;

use super::token::LIFETIME;
use crate::secret::Secret;

/// What a token request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    /// The token.
    pub token: Secret,
    /// What gives another one, if that was asked for and there is an account.
    pub refresh_token: Option<Secret>,
    /// When it was made.
    pub issued_at: SystemTime,
    /// What was granted of what was asked for, as scopes.
    pub scope: String,
    /// Whose account asked for it; none: nobody's.
    pub account: Option<String>,
}

/// The names of the Docker token specification; the first two say the same.
#[derive(Serialize)]
struct Document<'a> {
    token: &'a str,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    expires_in: u64,
    issued_at: String,
    scope: &'a str,
}

impl TokenGrant {
    /// The body of the answer. It must not be kept by anything on its way (`Cache-Control: no-store`).
    pub fn to_json(&self) -> String {
        let document = Document {
            token: self.token.expose(),
            access_token: self.token.expose(),
            refresh_token: self.refresh_token.as_ref().map(Secret::expose),
            expires_in: LIFETIME.as_secs(),
            issued_at: humantime::format_rfc3339_seconds(self.issued_at).to_string(),
            scope: &self.scope,
        };
        // Texts and a number: nothing that JSON cannot say.
        serde_json::to_string(&document).unwrap_or_default()
    }
}
