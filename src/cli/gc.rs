//! `larder gc`: removes what nobody needs any more, or tells what that is. On a running server through its admin address;
//! on one that is stopped, in its data directory.

use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output;
use super::running_server::{OperatorToken, RunningServer};
use crate::admin::client::{self, AdminError};
use crate::admin::garbage::Report;
use crate::app;
use crate::storage::Hosted;

/// How long a server may look at its files: some seconds for a million of them.
const PATIENCE: Duration = Duration::from_secs(600);
/// Entries that are printed; --json has all.
const LISTED: usize = 50;

/// Remove what nobody needs any more.
///
/// That is: blobs that no repository holds, and those of the private registry that no manifest names. A running server
/// does this by itself every ten minutes, with what nobody has asked for since an hour. With --config and no server
/// running, the data directory is cleaned at once: a push that was cut off begins anew.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder gc --dry-run --config /etc/larder/larder.toml")]
pub(super) struct Gc {
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
    /// Remove nothing: only tell what is garbage, and for how long it has been.
    #[arg(long)]
    dry_run: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Gc {
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let report = match runtime.block_on(self.ask())? {
            Some(report) => report,
            None => self.in_directory()?,
        };
        let text = if self.json { format!("{report:#}\n") } else { render(&report, self.dry_run) };
        output::write(&text)
    }

    /// What the running server says; none: there is none, and its directory is at hand.
    async fn ask(&self) -> Result<Option<Value>, Failure> {
        let server = self.server.url()?;
        let answer = if self.dry_run {
            client::get_within(&server, "/api/gc", PATIENCE).await
        } else {
            let token = self.server.token(&self.token)?;
            client::post(&server, token.as_ref(), "/api/gc", Default::default(), PATIENCE).await
        };
        match answer {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|_| Failure::failed(format_args!("{server} did not answer as Larder does"))),
            Err(AdminError::Unreachable(..)) if self.server.config.is_some() => Ok(None),
            Err(error) => Err(Failure::failed(error)),
        }
    }

    fn in_directory(&self) -> Result<Value, Failure> {
        let config = self.server.configuration()?;
        let work = |store: &Hosted| if self.dry_run { Report::look(store) } else { Report::collect_all(store) };
        let store = app::open_stopped(&config).map_err(Failure::failed)?;
        let report = work(&store.hosted());
        store.close();
        serde_json::to_value(report.map_err(Failure::failed)?).map_err(Failure::failed)
    }
}

fn render(report: &Value, dry_run: bool) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let size = |value: &Value| ByteSize(number(value)).display().iec();
    let (mut text, removed) = (String::new(), &report["removed"]);
    // Writing to a text does not fail.
    if !dry_run {
        let (blobs, links) = (number(&removed["blobs"]), number(&removed["links"]));
        let _ = writeln!(text, "removed: {} in {blobs} blobs, and {links} links", size(&removed["bytes"]));
    }
    let garbage = report["garbage"].as_array().map(Vec::as_slice).unwrap_or_default();
    if garbage.is_empty() {
        text.push_str("no garbage is left\n");
        return text;
    }
    let grace = humantime::format_duration(Duration::from_secs(number(&report["grace_s"])));
    let _ = writeln!(text, "garbage that is removed once nobody has asked for it for {grace}:");
    for entry in garbage.iter().take(LISTED) {
        let age = humantime::format_duration(Duration::from_secs(number(&entry["age_s"])));
        let place = match entry["repository"].as_str() {
            Some(name) => format!("in {name}, where no manifest names it"),
            None => "in no repository".to_owned(),
        };
        let digest = entry["digest"].as_str().unwrap_or_default();
        let _ = writeln!(text, "  {digest}  {:>10}  since {age}  {place}", size(&entry["bytes"]).to_string());
    }
    let more = garbage.len().saturating_sub(LISTED) as u64 + number(&report["more"]);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}
