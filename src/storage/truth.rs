//! What the files say: a walk over all of them, from which the index can be made again. Never changes one.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::durable;
use super::home::Home;
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
            for (name, path) in durable::entries(&directory).map_err(io::Error::other)? {
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

    fn walk_cached(&self, each: Each<'_>) -> io::Result<ControlFlow<()>> {
        for (name, path) in durable::entries(&self.layout.cached()).map_err(io::Error::other)? {
            let Ok(registry) = name.parse::<Registry>() else { continue };
            let home = |name| Home::Cached(Repository { registry: registry.clone(), name });
            if walk_repository(&home, "", &path, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn walk_hosted(&self, each: Each<'_>) -> io::Result<ControlFlow<()>> {
        walk_repository(&Home::Hosted, "", &self.layout.hosted(), each)
    }
}

impl Truth for Files {
    fn walk(&self, each: Each<'_>) -> io::Result<()> {
        if self.walk_blobs(each)?.is_continue() && self.walk_cached(each)?.is_continue() {
            let _ = self.walk_hosted(each)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> io::Result<bool> {
        for directory in self.layout.blob_directories() {
            if !durable::entries(&directory).map_err(io::Error::other)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Depth is bounded by the length of a repository's name.
fn walk_repository(
    home: &dyn Fn(RepoName) -> Home,
    name: &str,
    path: &Path,
    each: Each<'_>,
) -> io::Result<ControlFlow<()>> {
    for (component, path) in durable::entries(path).map_err(io::Error::other)? {
        let flow = match (layout::inside(&component), name.parse::<RepoName>()) {
            (Inside::Links, Ok(name)) => walk_links(&home(name), &path, each)?,
            (Inside::Tags, Ok(name)) => walk_tags(&home(name), &path, each)?,
            (Inside::Repository, _) => {
                let below = if name.is_empty() { component } else { format!("{name}/{component}") };
                walk_repository(home, &below, &path, each)?
            }
            (Inside::Referrers | Inside::Public, _) | (_, Err(_)) => ControlFlow::Continue(()),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn walk_links(repository: &Home, directory: &Path, each: Each<'_>) -> io::Result<ControlFlow<()>> {
    for (name, path) in durable::entries(directory).map_err(io::Error::other)? {
        let link = durable::read(&path).map_err(io::Error::other)?.and_then(|bytes| Link::from_json(&bytes));
        let (Some(digest), Some(link)) = (layout::parse_file_name(&name), link) else { continue };
        if each(Change::Linked { repository: repository.clone(), digest, link }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn walk_tags(repository: &Home, directory: &Path, each: Each<'_>) -> io::Result<ControlFlow<()>> {
    for (name, path) in durable::entries(directory).map_err(io::Error::other)? {
        let record = durable::read(&path).map_err(io::Error::other)?;
        let record = record.and_then(|bytes| serde_json::from_slice::<TagRecord>(&bytes).ok());
        let (Ok(tag), Some(TagRecord { digest, at, .. })) = (name.parse(), record) else { continue };
        if each(Change::TagSet { repository: repository.clone(), tag, digest, at }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
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
