//! `larder serve`: configuration, logs, then the server until it is told to stop. Never decides what it serves.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::logging::{self, LogFormat};
use super::process_environment::variables;
use crate::app;
use crate::config::Config;

/// Run the server.
///
/// Without a file: a mirror of Docker Hub on 127.0.0.1:5000, metrics on 127.0.0.1:5080, data in ./larder-data.
///
/// Variables override the file's keys: LARDER_MIRROR_LISTEN is mirror.listen, LARDER_UPSTREAM_PASSWORD the default
/// upstream's password.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder serve --config /etc/larder/larder.toml --log info,larder=debug")]
pub(super) struct Serve {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
    /// What to log: a level (error, warn, info, debug, trace), or levels by module. Without it RUST_LOG counts, or info.
    #[arg(long, value_name = "FILTER", env = "LARDER_LOG")]
    log: Option<String>,
    /// How to log, on standard error.
    #[arg(long, value_name = "FORMAT", env = "LARDER_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let environment = variables()?;
        let config = Config::load(self.config.as_deref(), environment.into_iter()).map_err(Failure::wrong_use)?;
        let filter = self.log.filter(|filter| !filter.is_empty()).or_else(|| std::env::var("RUST_LOG").ok());
        let _flush = logging::start(&filter.unwrap_or_default(), self.log_format).map_err(Failure::wrong_use)?;
        app::run(config).map_err(Failure::failed)
    }
}
