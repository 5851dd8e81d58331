//! The directory of a docker-registry (distribution 2 and 3), as far as a proxy's cache needs it: which repositories, tags,
//! manifests and layers are in it, and where their bytes are. Only reads; believes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci::{Digest, RepoName, Tag};

/// Below the directory that its configuration names.
const INSIDE: &str = "docker/registry/v2";

/// The directory.
pub(super) struct Distribution {
    root: PathBuf,
}

/// A repository in it.
pub(super) struct Kept {
    pub(super) name: RepoName,
    path: PathBuf,
}

impl Distribution {
    /// The directory at `path`, or none there.
    pub(super) fn at(path: &Path) -> Option<Distribution> {
        let candidates = [path.join(INSIDE), path.to_owned()];
        let root =
            candidates.into_iter().find(|root| root.join("blobs").is_dir() && root.join("repositories").is_dir());
        root.map(|root| Distribution { root })
    }

    /// Where the bytes of a digest are, if they are there.
    pub(super) fn data(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let algorithm = digest.algorithm().as_str();
        self.root.join("blobs").join(algorithm).join(&hex[..2]).join(&hex).join("data")
    }

    /// Its repositories, by name.
    pub(super) fn repositories(&self) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        // Depth is bounded by the length of a name.
        let mut ahead = vec![(String::new(), self.root.join("repositories"))];
        while let Some((name, path)) = ahead.pop() {
            for (component, below) in directories(&path)? {
                if !component.starts_with('_') && name.len() < 256 {
                    ahead.push((if name.is_empty() { component } else { format!("{name}/{component}") }, below));
                }
            }
            if let Ok(name) = name.parse()
                && path.join("_manifests").is_dir()
            {
                found.push(Kept { name, path });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

impl Kept {
    /// Its manifests.
    pub(super) fn manifests(&self) -> io::Result<Vec<Digest>> {
        linked(&self.path.join("_manifests/revisions"))
    }

    /// Its configs and layers.
    pub(super) fn layers(&self) -> io::Result<Vec<Digest>> {
        linked(&self.path.join("_layers"))
    }

    /// What its tags mean.
    pub(super) fn tags(&self) -> io::Result<Vec<(Tag, Digest)>> {
        let mut tags = Vec::new();
        for (tag, path) in directories(&self.path.join("_manifests/tags"))? {
            let meaning = fs::read_to_string(path.join("current/link")).unwrap_or_default();
            if let (Ok(tag), Ok(digest)) = (tag.parse(), meaning.trim().parse()) {
                tags.push((tag, digest));
            }
        }
        Ok(tags)
    }
}

/// `sha256/<hex>/link` below a directory.
fn linked(root: &Path) -> io::Result<Vec<Digest>> {
    let mut found: Vec<Digest> = Vec::new();
    for (algorithm, path) in directories(root)? {
        for (hex, below) in directories(&path)? {
            // A link that was deleted leaves its directory.
            if let Ok(digest) = format!("{algorithm}:{hex}").parse()
                && below.join("link").is_file()
            {
                found.push(digest);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// None where there is no directory.
fn directories(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
