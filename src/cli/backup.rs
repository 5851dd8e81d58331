//! `larder backup`: what is hosted and what is pinned goes into an OCI image layout, from the running server or, where none
//! runs, from its data directory. Never changes anything of the server's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::output;
use super::progress_bar::watched;
use super::running_server::{OperatorToken, RunningServer};
use crate::admin::Remote;
use crate::admin::client;
use crate::app;
use crate::backup::{BackupError, BackupReport, Options, Progress, back_up};
use crate::config::Config;
use crate::oci_layout::Directory;

/// The rules of `[registry]`, as they were when the backup was made.
const RULES: &str = "registry.toml";
/// The accounts, if they were asked for.
const ACCOUNTS: &str = "htpasswd";

/// Back up what was pushed, and what is pinned.
///
/// DIR becomes an OCI image layout, which other tools read, too: `skopeo copy oci:DIR:golden/ui:v1 …`. It has every manifest,
/// tag and blob of the private registry as of the moment at which each repository is looked at, while the server goes on. In
/// the same DIR only what is new is copied; a backup that is cut off leaves the one before.
///
/// Of images that are pinned, by `larder pin` or in the configuration, it has what is cached, under their full names; the
/// patterns of `larder pin` are in DIR/larder/pins.json. The rules of `[registry]` are kept in DIR/larder/registry.toml if
/// this machine has the configuration.
///
/// Exit code 1 if something is lost on the server and could not be backed up; it is named, and the rest is there.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder backup /mnt/backup/larder --prune --config /etc/larder/larder.toml")]
pub(super) struct Backup {
    /// The directory of the backup; made if it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Read and check what is in the backup already, too.
    #[arg(long)]
    verify: bool,
    /// Remove what nothing in the backup needs any more.
    #[arg(long)]
    prune: bool,
    /// Keep the accounts with the hashes of their passwords, too: DIR/larder/htpasswd, for its owner only.
    #[arg(long)]
    with_accounts: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
}

impl Backup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.server.configuration()?;
        let (url, token) = (self.server.url()?, self.server.token(&self.token)?);
        let accounts = self.accounts(&config)?;
        let layout = Directory::claim(&self.directory).map_err(Failure::failed)?;
        let layout = Arc::new(layout);
        let options = Options { verify: self.verify, prune: self.prune };
        let (copied, progress) = (layout.clone(), Progress::default());
        let report = watched(&progress, async {
            // Should one run all the same that does not answer, its lock on the directory says so.
            if self.server.admin.is_none() && !client::answers(&url).await {
                let done = app::back_up_stopped(&config, copied, options, &progress).await;
                return done.map_err(Failure::failed);
            }
            back_up(&Remote::new(url, token), copied, options, &progress).await.map_err(Failure::failed)
        })??;
        // What another machine's server is configured to do, this one does not know.
        if self.server.admin.is_none() {
            keep(&layout, &config, accounts).map_err(Failure::failed)?;
        }
        self.report(&report)
    }

    /// Before anything is copied: a file that cannot be read is better known at once.
    fn accounts(&self, config: &Config) -> Result<Option<Vec<u8>>, Failure> {
        if !self.with_accounts {
            return Ok(None);
        }
        let registry = config.registry.as_ref().filter(|_| self.server.admin.is_none());
        let file = registry.and_then(|registry| registry.htpasswd.as_ref());
        let advice = "--with-accounts needs --config FILE with a registry.htpasswd, on the server's own machine";
        let file: &Path = file.ok_or_else(|| Failure::wrong_use(advice))?.as_path();
        let read = fs::read(file).map_err(|error| Failure::failed(format_args!("{}: {error}", file.display())));
        read.map(Some)
    }

    fn report(&self, report: &BackupReport) -> Result<(), Failure> {
        let BackupReport {
            repositories,
            manifests,
            tags,
            pins,
            pinned_images,
            copied_blobs,
            copied_bytes,
            removed_blobs,
            ..
        } = report;
        output::write(&if self.json {
            format!("{}\n", serde_json::to_string(report).unwrap_or_default())
        } else {
            format!(
                "{repositories} repositories, {tags} tags, {manifests} manifests, {pins} pins, {pinned_images} pinned images; \
                 {copied_blobs} blobs copied ({}), {removed_blobs} removed ({})\n",
                bytesize::ByteSize(*copied_bytes),
                bytesize::ByteSize(report.removed_bytes),
            )
        })?;
        if report.damaged.is_empty() {
            return Ok(());
        }
        let count = report.damaged.len();
        let lines: Vec<String> = report
            .damaged
            .iter()
            .map(|damage| format!("{} {}: {}", damage.repository, damage.image, damage.reason))
            .collect();
        Err(Failure::failed(format_args!(
            "{count} could not be backed up; push them again:\n{}\nThe rest is in the backup.",
            lines.join("\n")
        )))
    }
}

fn keep(layout: &Directory, config: &Config, accounts: Option<Vec<u8>>) -> Result<(), BackupError> {
    if let Some(rules) = config.registry_as_toml() {
        layout.keep(RULES, rules.as_bytes(), 0o644)?;
    }
    if let Some(accounts) = accounts {
        layout.keep(ACCOUNTS, &accounts, 0o600)?;
    }
    Ok(())
}
