//! Why a configuration is refused: one line each, naming the place, what stands there and what may. Never a secret.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The configuration file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: line {line}, column {column}: not TOML: {message}", file.display())]
    Syntax {
        /// The configuration file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no such key.
    #[error("{place}: no such key; did you mean {nearest}?")]
    UnknownKey {
        /// The file and the key.
        place: String,
        /// The known key most like it.
        nearest: &'static str,
    },
    /// There is no such environment variable.
    #[error("{variable}: no such setting; did you mean {nearest}?")]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The known variable most like it.
        nearest: String,
    },
    /// A setting is not allowed.
    #[error("{place}: {reason}")]
    Refused {
        /// The file, the key and its value; or the environment variable and its value.
        place: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
}
