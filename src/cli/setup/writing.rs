//! Puts a planned file in its place: whole or not at all, and with a copy of what was there before.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::NamedTempFile;
use thiserror::Error;

use super::plan::{Planned, Rule};
use super::snippet::MARK;
use crate::cli::client_files::{REGISTRIES_CONF, REGISTRIES_CONF_D};
use crate::cli::daemon_json::{self, MergeError};
use crate::cli::mirror_url::MirrorUrl;

/// Everybody who pulls must be able to read these.
const MODE: u32 = 0o644;

/// Why a file is as it was.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    /// The system refuses.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// It cannot be merged.
    #[error("{path} is left as it is: {source}")]
    Merge { path: PathBuf, source: MergeError },
    /// Somebody else wrote it.
    #[error("{path} is left as it is: it was not written by larder setup; --force replaces it, and keeps a copy")]
    Foreign { path: PathBuf },
    /// Another file says something else about the same registry.
    #[error(
        "{path} has an entry for {registry} of its own, which ours would replace: add [[registry.mirror]] to that entry \
         by hand, or use --force"
    )]
    Contradicts { path: PathBuf, registry: String },
    /// It is of the form that ends with Podman 1.
    #[error(
        "{path} has the old form ([registries.search]), which cannot be mixed with mirrors: bring it to the new one"
    )]
    OldForm { path: PathBuf },
    /// A file that we must understand is not TOML.
    #[error("{path}: {source}")]
    NotToml { path: PathBuf, source: Box<toml::de::Error> },
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It says so already.
    Unchanged,
    /// It is new.
    New,
    /// It was changed, and what it was is here.
    Changed { before: PathBuf },
}

/// What a file is to become.
#[derive(Debug)]
pub(super) struct Step {
    path: PathBuf,
    old: Option<String>,
    new: Option<String>,
}

impl Step {
    /// Reads what is there and decides; writes nothing, so that all steps can be decided before the first is done.
    ///
    /// # Errors
    /// What is there cannot be read, or must not be touched.
    pub(super) fn decide(planned: &Planned, root: &Path, mirror: &MirrorUrl, force: bool) -> Result<Step, WriteError> {
        let path = below(root, &planned.path);
        let old = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(WriteError::Io { path, source }),
        };
        let new = match (planned.rule, &old) {
            (_, Some(old)) if *old == planned.text => None,
            (Rule::Ours, Some(old)) if !old.starts_with(MARK) && !force => return Err(WriteError::Foreign { path }),
            (Rule::DaemonJson, Some(old)) => daemon_json::with_mirror(old, mirror.as_str(), &planned.text)
                .map_err(|source| WriteError::Merge { path: path.clone(), source })?,
            _ => Some(planned.text.clone()),
        };
        Ok(Step { path, old, new })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Does it.
    ///
    /// # Errors
    /// The system refuses; then the file is as it was.
    pub(super) fn carry_out(&self, now: SystemTime) -> Result<Written, WriteError> {
        let Some(new) = &self.new else { return Ok(Written::Unchanged) };
        self.replace(new, now).map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    fn replace(&self, new: &str, now: SystemTime) -> io::Result<Written> {
        // A link stays one: what it leads to is replaced.
        let path = if self.old.is_some() { fs::canonicalize(&self.path)? } else { self.path.clone() };
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mut written = Written::New;
        let mut permissions = Permissions::from_mode(MODE);
        if let Some(old) = &self.old {
            permissions = fs::metadata(&path)?.permissions();
            let before = copy_name(&path, now);
            put(folder, &before, old, permissions.clone())?;
            written = Written::Changed { before };
        }
        put(folder, &path, new, permissions)?;
        Ok(written)
    }
}

/// Refuses what would contradict our drop-in, or be silently replaced by it.
///
/// # Errors
/// `registries.conf`, or another drop-in, is about the same registry, or is of the old form.
pub(super) fn check_registries_conf(root: &Path, registries: &[String], force: bool) -> Result<(), WriteError> {
    let folder = below(root, Path::new(REGISTRIES_CONF_D));
    let mut paths = vec![below(root, Path::new(REGISTRIES_CONF))];
    let entries = fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "conf")));
    for path in paths {
        let text = match fs::read_to_string(&path) {
            Ok(text) if !text.starts_with(MARK) => text,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(WriteError::Io { path, source }),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(source) => return Err(WriteError::NotToml { path, source: Box::new(source) }),
        };
        if table.contains_key("registries") {
            return Err(WriteError::OldForm { path });
        }
        let entries = table.get("registry").and_then(toml::Value::as_array).into_iter().flatten();
        // Without a prefix, the location is one.
        let mut prefixes = entries.filter_map(|entry| entry.get("prefix").or_else(|| entry.get("location"))?.as_str());
        if let Some(prefix) = prefixes.find(|prefix| !force && registries.iter().any(|ours| ours == prefix)) {
            return Err(WriteError::Contradicts { registry: prefix.to_owned(), path });
        }
    }
    Ok(())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Written beside its place, synced, and moved there.
fn put(folder: &Path, path: &Path, text: &str, permissions: Permissions) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(permissions)?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// `daemon.json.before-larder-20261121T121500Z`; with a number behind it if there is one of this second.
fn copy_name(path: &Path, now: SystemTime) -> PathBuf {
    let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names = (1..1000).map(|n| {
        let number = if n == 1 { String::new() } else { format!("-{n}") };
        path.with_file_name(format!("{name}.before-larder-{time}{number}"))
    });
    let mut free = names.filter(|candidate| !candidate.exists());
    free.next().unwrap_or_else(|| path.with_file_name(format!("{name}.before-larder-{time}-last")))
}
