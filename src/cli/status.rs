//! `larder status`: how a running server is. Asks its admin address, and changes nothing.

use std::io::{ErrorKind, Write};

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::running_server::RunningServer;
use super::status_text;
use crate::admin::client::{self, AdminUrl};

/// Show how a running server is.
///
/// Upstreams and since when they are out of order, what is cached, what is left of the rate limits and who used it.
/// Exits with 0 if the server answered, whatever it said of its upstreams; with 1 if it did not.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder status --admin http://127.0.0.1:5080")]
pub(super) struct Status {
    #[command(flatten)]
    server: RunningServer,
    /// Print what the server says as JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let server = self.server.url()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let (status, budget) = runtime.block_on(async {
            let status = page(&server, "/api/status").await?;
            Ok::<_, Failure>((status, page(&server, "/api/budget").await?))
        })?;
        let text = if self.json {
            format!("{:#}\n", json!({"status": status, "budget": budget}))
        } else {
            status_text::render(&status, &budget)
        };
        match std::io::stdout().write_all(text.as_bytes()) {
            // `larder status | head` has seen enough.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

async fn page(server: &AdminUrl, path: &str) -> Result<Value, Failure> {
    let bytes = client::get(server, path).await.map_err(Failure::failed)?;
    serde_json::from_slice(&bytes).map_err(|_| Failure::failed(format_args!("{server}{path} is not what Larder sends")))
}
