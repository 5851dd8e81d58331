//! Why the server does not run; each tells a person what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::access;
use crate::server::BindError;
use crate::storage::{OpenError, StorageError};
use crate::upstream::SetupError;

/// Why the server does not run.
#[derive(Debug, Error)]
pub enum Error {
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An upstream's settings.
    #[error("upstream {name}: {source}")]
    Upstream {
        /// What clients call it.
        name: String,
        /// What is wrong.
        source: Box<SetupError>,
    },
    /// An upstream's address.
    #[error("upstream {name}: its url is not one that can be asked")]
    Url {
        /// What clients call it.
        name: String,
    },
    /// An upstream's `allow`, `deny` and `private`.
    #[error("upstream {name}: its patterns are too large together: {source}")]
    Patterns {
        /// What clients call it.
        name: String,
        /// Why.
        source: globset::Error,
    },
    /// The patterns under `pin`.
    #[error("cache.pin: its patterns are too large together: {0}")]
    Pins(globset::Error),
    /// An upstream's `ca` file.
    #[error("upstream {name}: cannot read its ca file {path}: {source}")]
    Ca {
        /// What clients call it.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry's rules.
    #[error("registry.repository {pattern}: its patterns are too large to compile: {source}")]
    Rule {
        /// Its pattern.
        pattern: String,
        /// Why.
        source: globset::Error,
    },
    /// The registry's accounts and keys.
    #[error(transparent)]
    Access(#[from] access::SetupError),
    /// What was being pushed when the last process ended.
    #[error("data_dir: {0}")]
    Uploads(StorageError),
    /// The system refuses threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}
