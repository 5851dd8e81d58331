//! Which repositories there are, hosted and cached, as the files say. Knows nothing of what is in them.

use std::path::{Path, PathBuf};

use super::durable;
use super::error::StorageError;
use super::layout::{self, Inside, Layout, RepositoryDirectory};
use crate::oci::{Registry, RepoName, Repository};

/// Every hosted repository, and where it is; and every name that is only the beginning of one's.
pub fn hosted(layout: &Layout) -> Result<Vec<(RepoName, RepositoryDirectory)>, StorageError> {
    below(&layout.hosted())
}

/// The same of cached ones.
pub fn cached(layout: &Layout) -> Result<Vec<(Repository, RepositoryDirectory)>, StorageError> {
    let mut found = Vec::new();
    for (name, path) in durable::entries(&layout.cached())? {
        let Ok(registry) = name.parse::<Registry>() else { continue };
        let repository = |name| Repository { registry: registry.clone(), name };
        found.extend(below(&path)?.into_iter().map(|(name, directory)| (repository(name), directory)));
    }
    Ok(found)
}

fn below(root: &Path) -> Result<Vec<(RepoName, RepositoryDirectory)>, StorageError> {
    let mut found = Vec::new();
    // Depth is bounded by the length of a repository's name.
    let mut ahead: Vec<(String, PathBuf)> = vec![(String::new(), root.to_owned())];
    while let Some((name, path)) = ahead.pop() {
        for (component, below) in durable::entries(&path)? {
            if layout::inside(&component) == Inside::Repository {
                let name = if name.is_empty() { component } else { format!("{name}/{component}") };
                ahead.push((name, below));
            }
        }
        if let Ok(name) = name.parse() {
            found.push((name, RepositoryDirectory::new(path)));
        }
    }
    Ok(found)
}
