//! Why someone is not let in. Never holds a password, a token or a hash.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::htpasswd::HtpasswdError;

/// Why a credential is not taken. The door answers the first three with 401 and a challenge, then 400, 429, 503.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The `Authorization` header cannot be understood.
    #[error("the Authorization header is neither Basic nor Bearer: log in again")]
    Malformed,
    /// There is no such account, or it has another password; nobody learns which.
    #[error("wrong user name or password")]
    WrongPassword,
    /// A token that is not ours, or too old, or of an account that is gone or has another password.
    #[error("the token is not valid (any more): ask for another one, or log in again")]
    InvalidToken,
    /// A token was asked for in a way that is not known here.
    #[error("{0}")]
    BadRequest(&'static str),
    /// Too many passwords at once, or too many wrong ones from one address.
    #[error("too many logins: try again in {} s", retry_after.as_secs())]
    TooMany {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The check itself failed, so nobody is let in by it.
    #[error("the password could not be checked: try again; the server's log says why")]
    Unavailable,
}

/// Why there is no access control to begin with.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The file of accounts cannot be read.
    #[error("cannot read the htpasswd file {path:?} as the user that larder runs as: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file of accounts is no good.
    #[error("{path:?}: {source}")]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HtpasswdError,
    },
    /// The key that signs tokens cannot be read or made.
    #[error("the key for tokens, {path:?}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}
