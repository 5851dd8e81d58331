//! `larder check-config`: is this file good, and what does it come to? Never starts anything, never shows a password.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output;
use super::process_environment::variables;
use crate::config::Config;

/// Check a configuration file, and print what is in effect with it.
///
/// Prints every setting, with defaults and LARDER_… variables applied, as a configuration file. Passwords are masked.
/// Exits with 2 and one line if the file is refused.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder check-config /etc/larder/larder.toml")]
pub(super) struct CheckConfig {
    /// The configuration file (TOML).
    file: PathBuf,
}

impl CheckConfig {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let environment = variables()?;
        let config = Config::load(Some(&self.file), environment.into_iter()).map_err(Failure::wrong_use)?;
        output::write(&config.to_toml_masked())
    }
}
