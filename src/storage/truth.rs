//! What the files say: a walk over all of them, from which the index can be made again. Never changes one.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::durable;
use super::index::{Change, Truth};
use super::layout::{self, Inside, Layout};
use super::link::Link;
use super::record::TagRecord;
use crate::oci::{Registry, RepoName, Repository};

/// The data directory, read as the truth that it is.
pub struct Files {
    layout: Layout,
}

type Each<'a> = &'a mut dyn FnMut(Change) -> ControlFlow<()>;

impl Files {
    /// Reads below `layout`.
    pub fn new(layout: Layout) -> Files {
        Files { layout }
    }

    fn walk_blobs(&self, each: Each<'_>) -> io::Result<ControlFlow<()>> {
        for directory in self.layout.blob_directories() {
            for (name, path) in entries(&directory)? {
                let Some(algorithm) = directory.parent().and_then(Path::file_name).and_then(|name| name.to_str())
                else {
                    continue;
                };
                let Ok(digest) = format!("{algorithm}:{name}").parse() else { continue };
                let Some((size, at)) = stat(&path)? else { continue };
                if each(Change::BlobStored { digest, size, at }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn walk_repositories(&self, each: Each<'_>) -> io::Result<ControlFlow<()>> {
        for (name, path) in entries(&self.layout.cached())? {
            let Ok(registry) = name.parse::<Registry>() else { continue };
            if walk_repository(&registry, "", &path, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Truth for Files {
    fn walk(&self, each: Each<'_>) -> io::Result<()> {
        if self.walk_blobs(each)?.is_continue() {
            let _ = self.walk_repositories(each)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> io::Result<bool> {
        for directory in self.layout.blob_directories() {
            if !entries(&directory)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Depth is bounded by the length of a repository's name.
fn walk_repository(registry: &Registry, name: &str, path: &Path, each: Each<'_>) -> io::Result<ControlFlow<()>> {
    for (component, path) in entries(path)? {
        let flow = match (layout::inside(&component), name.parse::<RepoName>()) {
            (Inside::Links, Ok(name)) => walk_links(&Repository { registry: registry.clone(), name }, &path, each)?,
            (Inside::Tags, Ok(name)) => walk_tags(&Repository { registry: registry.clone(), name }, &path, each)?,
            (Inside::Repository, _) => {
                let below = if name.is_empty() { component } else { format!("{name}/{component}") };
                walk_repository(registry, &below, &path, each)?
            }
            (Inside::Referrers | Inside::Public, _) | (_, Err(_)) => ControlFlow::Continue(()),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn walk_links(repository: &Repository, directory: &Path, each: Each<'_>) -> io::Result<ControlFlow<()>> {
    for (name, path) in entries(directory)? {
        let link = durable::read(&path).map_err(io::Error::other)?.and_then(|bytes| Link::from_json(&bytes));
        let (Some(digest), Some(link)) = (layout::parse_file_name(&name), link) else { continue };
        if each(Change::Linked { repository: repository.clone(), digest, link }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn walk_tags(repository: &Repository, directory: &Path, each: Each<'_>) -> io::Result<ControlFlow<()>> {
    for (name, path) in entries(directory)? {
        let record = durable::read(&path).map_err(io::Error::other)?;
        let record = record.and_then(|bytes| serde_json::from_slice::<TagRecord>(&bytes).ok());
        let (Ok(tag), Some(TagRecord { digest, at, .. })) = (name.parse(), record) else { continue };
        if each(Change::TagSet { repository: repository.clone(), tag, digest, at }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A directory that is not there has no entries; a name that is not UTF-8 is none of ours.
fn entries(directory: &Path) -> io::Result<Vec<(String, std::path::PathBuf)>> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

fn stat(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => {
            let at = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            Ok(Some((metadata.len(), at)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
