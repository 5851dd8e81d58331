//! The files of hosted repositories: links, tags, and where they are. Knows nothing of who changes them when.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::blob::BlobFile;
use super::durable;
use super::error::StorageError;
use super::index::{Change, State};
use super::link::Link;
use super::record::TagRecord;
use super::repositories;
use super::suspects::Suspect;
use super::vault::Vault;
use crate::oci::{Digest, RepoName};

/// How long a question waits for the index to have caught up before the files are asked instead.
const CATCH_UP: Duration = Duration::from_millis(50);

/// A repository has a blob from now on. A manifest of the same digest stays one.
pub fn add_blob_link(vault: &Vault, name: &RepoName, digest: &Digest, size: u64) -> Result<(), StorageError> {
    match link(vault, name, digest) {
        Ok(Some(Link::Manifest { .. })) => Ok(()),
        Ok(_) | Err(StorageError::Damaged { .. }) => set_link(vault, name, digest, Link::Blob { size }),
        Err(error) => Err(error),
    }
}

/// A repository has this content from now on.
pub fn set_link(vault: &Vault, name: &RepoName, digest: &Digest, new: Link) -> Result<(), StorageError> {
    use_of(vault, name, digest);
    if link(vault, name, digest).is_ok_and(|old| old == Some(new)) {
        return Ok(());
    }
    vault.replace(vault.layout.hosted_repository(name).link(digest), &new.to_json())?;
    // From here on it is ours, and no matter of the cache's.
    vault.space.gone(digest);
    vault.index.record(Change::Linked { repository: name.clone().into(), digest: *digest, link: new });
    Ok(())
}

/// A repository does not have this any more: if none has, it is the cache's where that has room, for as long as it is here.
/// What cannot be looked at now is counted at the next start.
pub fn release(vault: &Vault, digest: &Digest) {
    if holders(vault, digest, 1).is_ok_and(|holders| holders.is_empty())
        && let Ok(metadata) = fs::metadata(vault.layout.blob(digest))
    {
        vault.space.released(digest, metadata.len());
    }
}

/// Some repositories that hold a digest, in byte order.
pub fn holders(vault: &Vault, digest: &Digest, limit: usize) -> Result<Vec<RepoName>, StorageError> {
    if index_is_up_to_date(vault) {
        return Ok(vault.index.hosts_of(digest, limit));
    }
    let mut holders = Vec::new();
    for (name, _) in repositories::hosted(&vault.layout)? {
        if matches!(link(vault, &name, digest), Ok(Some(_))) {
            holders.push(name);
        }
    }
    holders.sort_unstable();
    holders.truncate(limit);
    Ok(holders)
}

/// Whether the index can answer.
pub fn index_is_up_to_date(vault: &Vault) -> bool {
    vault.index.settle(CATCH_UP) && matches!(vault.index.state(), State::Ready)
}

/// What a repository's link to a digest says, if there is one.
pub fn link(vault: &Vault, name: &RepoName, digest: &Digest) -> Result<Option<Link>, StorageError> {
    let path = vault.layout.hosted_repository(name).link(digest);
    let Some(bytes) = durable::read_ours(&path)? else { return Ok(None) };
    Link::from_json(&bytes).map(Some).ok_or(StorageError::Damaged { path })
}

/// What a link says is here, is, or is lost.
pub fn open(vault: &Vault, name: &RepoName, digest: &Digest) -> Result<Option<(Link, BlobFile)>, StorageError> {
    use_of(vault, name, digest);
    let Some(link) = link(vault, name, digest)? else { return Ok(None) };
    match vault.open(digest)? {
        Some(blob) if blob.size() == link.size() => Ok(Some((link, blob))),
        Some(_) => {
            vault.quarantine(digest, "its length is wrong")?;
            Err(StorageError::Lost { digest: *digest, new: true })
        }
        None => Err(StorageError::Lost { digest: *digest, new: false }),
    }
}

fn use_of(vault: &Vault, name: &RepoName, digest: &Digest) {
    vault.suspects.clear(&Suspect::Link(name.clone(), *digest));
    vault.suspects.clear(&Suspect::Blob(*digest));
}

/// What a tag's file says.
pub fn read_tag(path: &Path) -> Result<Option<Digest>, StorageError> {
    let Some(bytes) = durable::read_ours(path)? else { return Ok(None) };
    let record: Option<TagRecord> = serde_json::from_slice(&bytes).ok();
    record.map(|record| Some(record.digest)).ok_or_else(|| StorageError::Damaged { path: path.to_owned() })
}
