//! `larder backup`: what is hosted goes into an OCI image layout, from the running server or, where none runs, from its data
//! directory. Never changes anything of the server's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::output;
use super::process_environment::variables;
use super::progress_bar::watched;
use crate::app;
use crate::backup::{BackupError, BackupReport, Options, Progress};
use crate::config::Config;
use crate::oci_layout::Directory;

/// The rules of `[registry]`, as they were when the backup was made.
const RULES: &str = "registry.toml";
/// The accounts, if they were asked for.
const ACCOUNTS: &str = "htpasswd";

/// Back up what was pushed.
///
/// DIR becomes an OCI image layout, which other tools read, too: `skopeo copy oci:DIR:golden/ui:v1 …`. It has every manifest,
/// tag and blob of the private registry as of the moment at which each repository is looked at, while the server goes on. In
/// the same DIR only what is new is copied; a backup that is cut off leaves the one before.
///
/// The rules of [registry] are kept in DIR/larder/registry.toml if this machine has the configuration.
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
    /// The configuration file of a server on this machine, running or not.
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
}

impl Backup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = Config::load(self.config.as_deref(), variables()?.into_iter()).map_err(Failure::wrong_use)?;
        let accounts = self.accounts(&config)?;
        let layout = Directory::claim(&self.directory).map_err(Failure::failed)?;
        let layout = Arc::new(layout);
        let options = Options { verify: self.verify, prune: self.prune };
        let (copied, progress) = (layout.clone(), Arc::new(Progress::default()));
        let watching = progress.clone();
        let report = watched(watching, async move {
            app::back_up_stopped(&config, copied, options, &progress).await.map(|report| (report, config))
        })?;
        let (report, config) = report.map_err(Failure::failed)?;
        keep(&layout, &config, accounts).map_err(Failure::failed)?;
        self.report(&report)
    }

    /// Before anything is copied: a file that cannot be read is better known at once.
    fn accounts(&self, config: &Config) -> Result<Option<Vec<u8>>, Failure> {
        if !self.with_accounts {
            return Ok(None);
        }
        let file = config.registry.as_ref().and_then(|registry| registry.htpasswd.as_ref());
        let advice = "the configuration names no registry.htpasswd; give --config FILE with one";
        let file: &Path = file.ok_or_else(|| Failure::wrong_use(advice))?.as_path();
        let read = fs::read(file).map_err(|error| Failure::failed(format_args!("{}: {error}", file.display())));
        read.map(Some)
    }

    fn report(&self, report: &BackupReport) -> Result<(), Failure> {
        let BackupReport { repositories, manifests, tags, copied_blobs, copied_bytes, removed_blobs, .. } = report;
        output::write(&if self.json {
            format!("{}\n", serde_json::to_string(report).unwrap_or_default())
        } else {
            format!(
                "{repositories} repositories, {tags} tags, {manifests} manifests; {copied_blobs} blobs copied ({}), \
                 {removed_blobs} removed ({})\n",
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
    match config.registry_as_toml() {
        Some(rules) => drop(layout.keep(RULES, rules.as_bytes(), 0o644)?),
        None => layout.forget(RULES)?,
    }
    if let Some(accounts) = accounts {
        layout.keep(ACCOUNTS, &accounts, 0o600)?;
    }
    Ok(())
}
