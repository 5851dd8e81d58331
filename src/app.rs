//! A stand-in for the composition root, until the floors below it are there. Serves nothing.

use thiserror::Error;

use crate::config::Config;

/// Why the server stopped.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no server yet.
    #[error("this build has no server")]
    Absent,
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// Always.
pub fn run(_config: Config) -> Result<(), Error> {
    Err(Error::Absent)
}
