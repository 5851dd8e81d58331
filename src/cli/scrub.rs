//! `larder scrub`: has everything at rest read and checked, by the running server or, where none runs, by itself.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::running_server::{OperatorToken, RunningServer};
use crate::admin::client::{self, AdminError, AdminUrl};
use crate::app;
use crate::cache::ScrubProgress;
use crate::config::Config;

/// How often a running server is asked how far it is.
const LOOK: Duration = Duration::from_millis(300);

/// Read everything on disk and check it.
///
/// What is damaged goes to quarantine/ in the data directory and is not served again. What was cached is fetched anew, with
/// --repair at once, else when someone asks for it; what was pushed must be pushed again or restored from a backup.
///
/// A running server does it, at the pace of its configuration; the data directory of a stopped one is read as fast as it goes.
/// Exit code 1 if something was damaged and is not repaired.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder scrub --repair --config /etc/larder/larder.toml")]
pub(super) struct Scrub {
    /// Fetch anew what is damaged.
    #[arg(long)]
    repair: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
}

impl Scrub {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.server.configuration()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
        let bar = bar();
        let done = runtime.block_on(self.scrub(&config, &bar))?;
        bar.finish_and_clear();
        runtime.shutdown_timeout(Duration::from_secs(1));
        self.report(&done)
    }

    async fn scrub(&self, config: &Config, bar: &ProgressBar) -> Result<ScrubProgress, Failure> {
        let (server, token) = (self.server.url()?, self.server.token(&self.token)?);
        let path = if self.repair { "/api/scrub?repair=true" } else { "/api/scrub" };
        match client::begin(&server, token.as_ref(), path).await {
            // One that is under way is as good, and is waited for.
            Ok(_begins) => follow(&server, bar).await,
            // Should one run all the same, its lock on the directory says so.
            Err(AdminError::Unreachable(..)) if self.server.admin.is_none() => {
                app::scrub(config, self.repair, |progress| show(bar, progress)).await.map_err(Failure::failed)
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }

    fn report(&self, done: &ScrubProgress) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let written = if self.json {
            writeln!(out, "{}", serde_json::to_string(done).unwrap_or_default())
        } else {
            let ScrubProgress { blobs, bytes, damaged, repaired, resummed, small_files, .. } = done;
            writeln!(
                out,
                "{blobs} blobs, {} read: {damaged} damaged, {repaired} fetched anew; {small_files} small files damaged; \
                 checksums made for {resummed}",
                bytesize::ByteSize(*bytes),
            )
        };
        written.map_err(Failure::failed)?;
        match (done.damaged - done.repaired, done.lost, done.errors) {
            (0, 0, 0) => Ok(()),
            (left, lost, errors) => Err(Failure::failed(format!(
                "{left} blobs are in quarantine and not here again; {lost} of them were pushed: push them again; {errors} \
                 could not be looked at: see the log"
            ))),
        }
    }
}

async fn follow(server: &AdminUrl, bar: &ProgressBar) -> Result<ScrubProgress, Failure> {
    loop {
        let body = client::get(server, "/api/scrub").await.map_err(Failure::failed)?;
        let progress: ScrubProgress = serde_json::from_slice(&body).map_err(Failure::failed)?;
        show(bar, &progress);
        if !progress.running {
            return Ok(progress);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn bar() -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: &ScrubProgress) {
    bar.set_length(progress.of_bytes.max(progress.bytes));
    bar.set_position(progress.bytes);
    bar.set_message(format!("{} damaged", progress.damaged));
}
