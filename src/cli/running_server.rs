//! Which running server a command talks to, and what shows that it may change things there. Sends nothing itself.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::process_environment::variables;
use crate::admin::client::AdminUrl;
use crate::config::{self, Config};
use crate::secret::Secret;

/// What every command says of the server that it talks to.
#[derive(Debug, Args)]
pub(super) struct RunningServer {
    /// The admin address of the server.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub(super) admin: Option<AdminUrl>,
    /// The configuration file of a server on this machine, running or not.
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

/// The token of an operator, for commands that change something.
#[derive(Debug, Args)]
pub(super) struct OperatorToken {
    /// The file with the token that the server's `[admin]` token_file has; from --config if that names one.
    #[arg(long = "admin-token-file", value_name = "FILE", env = "LARDER_ADMIN_TOKEN_FILE")]
    file: Option<PathBuf>,
}

impl RunningServer {
    /// Where it is.
    pub(super) fn url(&self) -> Result<AdminUrl, Failure> {
        match &self.admin {
            Some(url) => Ok(url.clone()),
            None => Ok(AdminUrl::listening(self.configuration()?.admin.listen.addr())),
        }
    }

    /// What it is configured to do, as far as this machine knows.
    pub(super) fn configuration(&self) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), variables()?.into_iter()).map_err(Failure::wrong_use)
    }

    /// The token to show to it, if there is one.
    pub(super) fn token(&self, token: &OperatorToken) -> Result<Option<Secret>, Failure> {
        match &token.file {
            Some(file) => match config::read_token(file) {
                Ok(token) => Ok(Some(token)),
                Err(reason) => Err(Failure::wrong_use(format_args!("{}: {reason}", file.display()))),
            },
            None if self.admin.is_some() => Ok(None),
            None => Ok(self.configuration()?.admin.token),
        }
    }
}
