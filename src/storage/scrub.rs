//! All that is here, to be looked at bit by bit: what there is, in an order that outlives a restart, and how far the last
//! look came. Paces nothing and fetches nothing: whoever goes through it does.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::durable::{self, Small};
use super::error::StorageError;
use super::examination::Examination;
use super::layout::RepositoryDirectory;
use super::link::Link;
use super::record::{PublicRecord, ReferrersRecord, TagRecord};
use super::repositories;
use super::vault::Vault;
use crate::oci::{Digest, RepoName, Repository};

/// How far a round came, as it is kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRecord {
    /// The directory of blobs that comes next; 0: a round begins.
    pub next: usize,
    /// When a round was last at its end, in seconds since 1970.
    pub completed: Option<u64>,
}

/// What is here. Every method blocks on the disk.
#[derive(Clone)]
pub struct Scrub {
    vault: Arc<Vault>,
}

/// What the small files came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallFiles {
    /// Of cached repositories, damaged, and set aside: what they said is learnt again.
    pub set_aside: u64,
    /// Of hosted repositories, damaged: they stay, for nobody else has what they said.
    pub damaged: u64,
}

impl Scrub {
    pub(super) fn new(vault: Arc<Vault>) -> Scrub {
        Scrub { vault }
    }

    /// Waits until the index knows of all that is here. Says whether it came to that.
    pub fn settle(&self, patience: Duration) -> bool {
        self.vault.index.settle(patience)
    }

    /// How far the last round came. One of which nothing is known, or nothing that can be read, never began.
    pub fn record(&self) -> ScrubRecord {
        let bytes = durable::read(&self.vault.layout.scrub()).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps how far this one is.
    ///
    /// # Errors
    /// The disk fails.
    pub fn keep(&self, record: ScrubRecord) -> Result<(), StorageError> {
        self.vault.replace(self.vault.layout.scrub(), &serde_json::to_vec(&record).unwrap_or_default())
    }

    /// How many directories of blobs there are.
    pub fn directories(&self) -> usize {
        self.vault.layout.blob_directories().count()
    }

    /// The blobs in one of them, and how long each is. Sums without a blob are removed on the way.
    ///
    /// # Errors
    /// The disk fails.
    pub fn blobs(&self, directory: usize) -> Result<Vec<(Digest, u64)>, StorageError> {
        let Some(directory) = self.vault.layout.blob_directories().nth(directory) else { return Ok(Vec::new()) };
        let algorithm = directory.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        let mut found = Vec::new();
        for (name, path) in durable::entries(&directory)? {
            match (format!("{algorithm}:{name}").parse(), path.extension()) {
                (Ok(digest), _) => found.extend(fs::metadata(&path).ok().map(|metadata| (digest, metadata.len()))),
                (Err(_), Some(extension)) if extension == "crc" => self.remove_orphan(&path),
                _ => {}
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Sums come before their blob: they are nobody's only while nothing is being stored.
    fn remove_orphan(&self, sums: &Path) {
        let blob = sums.with_extension("");
        if !blob.exists()
            && let Ok(_alone) = self.vault.alone()
            && !blob.exists()
        {
            let _ = fs::remove_file(sums);
        }
    }

    /// Begins to look at a blob, if it is here.
    ///
    /// # Errors
    /// The disk fails.
    pub fn examine(&self, digest: &Digest) -> Result<Option<Examination>, StorageError> {
        Examination::begin(self.vault.clone(), *digest)
    }

    /// Whose a blob is: some cached repositories that hold it, and some hosted ones, as far as the index knows.
    pub fn holders(&self, digest: &Digest, limit: usize) -> (Vec<Repository>, Vec<RepoName>) {
        (self.vault.index.repositories_of(digest, limit), self.vault.index.hosts_of(digest, limit))
    }

    /// What a repository's link to a blob says, if it can be read.
    pub fn link(&self, repository: &Repository, digest: &Digest) -> Option<Link> {
        let bytes = durable::read(&self.vault.layout.repository(repository).link(digest)).ok()??;
        Link::from_json(&bytes)
    }

    /// Looks at every link, tag and list of referrers.
    ///
    /// # Errors
    /// The disk fails.
    pub fn small_files(&self) -> Result<SmallFiles, StorageError> {
        let mut result = SmallFiles::default();
        for (_, directory) in repositories::cached(&self.vault.layout)? {
            for path in damaged(&directory, true)? {
                self.set_aside(&path)?;
                result.set_aside += 1;
            }
        }
        for (_, directory) in repositories::hosted(&self.vault.layout)? {
            for path in damaged(&directory, false)? {
                tracing::error!(path = %path.display(), "a small file is damaged: restore it, or push what it was about again");
                result.damaged += 1;
            }
        }
        Ok(result)
    }

    fn set_aside(&self, path: &Path) -> Result<(), StorageError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = format!("{name}.{}", self.vault.clock.unix_seconds());
        tracing::error!(path = %path.display(), "a small file is damaged, and was set aside in quarantine/");
        match fs::rename(path, self.vault.layout.quarantine().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::io("setting aside", path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The small files of a repository that are not what was written.
fn damaged(directory: &RepositoryDirectory, is_cached: bool) -> Result<Vec<std::path::PathBuf>, StorageError> {
    fn is<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> bool {
        serde_json::from_slice::<T>(bytes).is_ok()
    }
    let mut found = Vec::new();
    let mut look = |path: std::path::PathBuf, parses: fn(&[u8]) -> bool| {
        match durable::look(&path)? {
            Small::Absent => {}
            Small::Whole(bytes) if parses(&bytes) => {}
            Small::Whole(_) | Small::Damaged => found.push(path),
        }
        Ok::<_, StorageError>(())
    };
    for (_, path) in durable::entries(&directory.links())? {
        look(path, |bytes| Link::from_json(bytes).is_some())?;
    }
    for (_, path) in durable::entries(&directory.tags())? {
        look(path, is::<TagRecord>)?;
    }
    if is_cached {
        for (_, path) in durable::entries(&directory.all_referrers())? {
            look(path, is::<ReferrersRecord>)?;
        }
        look(directory.public(), is::<PublicRecord>)?;
    } else {
        for (_, subject) in durable::entries(&directory.all_referrers())? {
            for (_, path) in durable::entries(&subject)? {
                look(path, is::<serde_json::Value>)?;
            }
        }
    }
    Ok(found)
}
