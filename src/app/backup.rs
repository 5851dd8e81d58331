//! Backups of, and into, the data directory of a server that does not run. Its lock says if one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::error::Error;
use super::pins;
use super::stopped::open_stopped;
use super::wiring::routes;
use crate::backup::{self, BackupError, BackupReport, Local, Options, Progress, RestoreReport};
use crate::config::Config;
use crate::oci_layout::{Directory, LayoutError};
use crate::storage::{self, OpenError, Store};
use crate::task;

/// Why not.
#[derive(Debug, Error)]
pub enum StoppedError {
    /// There is nothing to back up.
    #[error("no server answers, and there is no data directory at {0}: give --config FILE, or --admin URL")]
    NoData(PathBuf),
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] Error),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Backs up what is hosted and what is pinned in a data directory that no server uses.
///
/// # Errors
/// There is none, a server uses it, or the disk fails.
pub async fn back_up_stopped(
    config: &Config,
    layout: Arc<Directory>,
    options: Options,
    progress: &Progress,
) -> Result<BackupReport, StoppedError> {
    let data_dir = config.data_dir.as_path();
    if !storage::is_data_directory(data_dir) {
        return Err(StoppedError::NoData(data_dir.to_owned()));
    }
    let stopped = config.clone();
    let store = task::blocking(move || open_stopped(&stopped)).await?;
    let done = back_up_store(config, &store, layout, options, progress).await;
    task::blocking(move || store.close()).await;
    done
}

async fn back_up_store(
    config: &Config,
    store: &Store,
    layout: Arc<Directory>,
    options: Options,
    progress: &Progress,
) -> Result<BackupReport, StoppedError> {
    let pins = pins::open(config, store, &routes(config)?, None).await?;
    let is_pinned = Arc::new(move |repository: &_, reference: &_| pins.cover_reference(repository, reference));
    Ok(backup::back_up(&Local::new(store, is_pinned), layout, options, progress).await?)
}

/// Restores a backup into a data directory that no server uses, and that is made if it is not there.
///
/// # Errors
/// There is no backup, something would be overwritten, a server uses the directory, or the disk fails.
pub async fn restore(
    config: &Config,
    from: &Path,
    force: bool,
    progress: Arc<Progress>,
) -> Result<RestoreReport, StoppedError> {
    // Before the data directory is made for nothing.
    let layout = Directory::open(from).map_err(|error: LayoutError| BackupError::from(error))?;
    let config = config.clone();
    let store = task::blocking(move || open_stopped(&config)).await?;
    // The cache gets no room before that.
    store.counted().await;
    let done = task::blocking(move || {
        let done = backup::restore(&layout, &store, force, &progress);
        store.close();
        done
    });
    Ok(done.await?)
}
