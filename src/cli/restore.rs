//! `larder restore`: what a backup has comes back into the data directory of a server that does not run. Never touches the
//! configuration.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::output;
use super::process_environment::variables;
use super::progress_bar::watched;
use crate::app;
use crate::backup::{Progress, RestoreReport};
use crate::config::Config;

/// Restore a backup.
///
/// Into the data directory of a server that does not run; it is made if it is not there. Every byte is checked on its way, and
/// a tag appears only when all that is below it is there. What is there already and is not in the backup stays, and what
/// is pinned in either is pinned; what is cut off can be repeated. Pinned images of other registries go into the cache: a tag
/// of which it knows something already means what it meant there.
///
/// The rules of `[registry]` and the accounts that `larder backup` kept are in DIR/larder: they belong to the configuration,
/// which this command does not touch.
///
/// Exit code 1 if something in the backup is damaged; it is named, and of that image nothing is restored.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder restore /mnt/backup/larder --config /etc/larder/larder.toml")]
pub(super) struct Restore {
    /// The directory of the backup.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Give tags that mean something else now the meaning that they have in the backup, and pin what is pinned there alone.
    #[arg(long)]
    force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// The configuration file of the server that is to have it.
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
}

impl Restore {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = Config::load(self.config.as_deref(), variables()?.into_iter()).map_err(Failure::wrong_use)?;
        let progress = Arc::new(Progress::default());
        let report = watched(&progress, app::restore(&config, &self.directory, self.force, progress.clone()))?;
        self.report(&report.map_err(Failure::failed)?)
    }

    fn report(&self, report: &RestoreReport) -> Result<(), Failure> {
        let RestoreReport { repositories, manifests, tags, pins, pinned_images, copied_blobs, copied_bytes, damaged } =
            report;
        output::write(&if self.json {
            format!("{}\n", serde_json::to_string(report).unwrap_or_default())
        } else {
            format!(
                "{repositories} repositories, {tags} tags, {manifests} manifests, {pins} pins, {pinned_images} pinned images; \
                 {copied_blobs} blobs copied ({})\n",
                bytesize::ByteSize(*copied_bytes)
            )
        })?;
        if damaged.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> =
            damaged.iter().map(|damage| format!("{} {}: {}", damage.repository, damage.image, damage.reason)).collect();
        Err(Failure::failed(format_args!(
            "{} in the backup are damaged and were not restored:\n{}\nThe rest was restored.",
            damaged.len(),
            lines.join("\n")
        )))
    }
}
