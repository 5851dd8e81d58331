//! Why there is no backup, or nothing came back from one.

use std::fmt::Write as _;

use thiserror::Error;

use super::source::SourceError;
use crate::oci_layout::LayoutError;
use crate::storage::StorageError;

/// Why not.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Where the content comes from.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Someone else's images are in there.
    #[error("{0} is an OCI image layout, and no backup of Larder: name another directory")]
    NotABackup(String),
    /// It was made by a version that this one does not know.
    #[error(
        "{directory} is a backup of format {found}, which this version does not know: use the version that made it"
    )]
    Format {
        /// Where.
        directory: String,
        /// Which.
        found: String,
    },
    /// The index says what cannot be.
    #[error("index.json: {0}")]
    Index(String),
    /// Something else would be overwritten.
    #[error("nothing was restored: {}; --force gives these tags the meaning that they have in the backup", listed(.0))]
    Conflicts(Vec<String>),
}

/// A few of them, and how many more there are.
fn listed(conflicts: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = conflicts.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if conflicts.len() > SHOWN {
        // Writing to a text does not fail.
        let _ = write!(text, " and {} more", conflicts.len() - SHOWN);
    }
    let verb = if conflicts.len() == 1 { "means" } else { "mean" };
    format!("{text} {verb} something else here")
}
