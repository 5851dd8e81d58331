//! Collecting what nobody needs: mark and sweep over the files, while pushes and pulls go on.
//!
//! Two things can be garbage: a hosted repository's link to a blob that none of its manifests names, and a blob that no
//! repository holds, hosted or cached. A manifest never is: only deleting it takes it away. Nothing is removed that was
//! used since it was first found ([`super::suspects`]), nor a link of a repository to which something is being uploaded;
//! and nothing is concluded from what could not be read.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::durable;
use super::error::StorageError;
use super::hosted_files::{holders, index_is_up_to_date, link, release};
use super::index::Change;
use super::layout;
use super::link::Link;
use super::print::Print;
use super::repositories;
use super::space::length_of;
use super::suspects::{Garbage, Suspect};
use super::upload::destinations;
use super::vault::Vault;
use crate::oci::{Digest, Manifest, RepoName};

/// How many are removed before others may go on.
const BATCH: usize = 64;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Links of hosted repositories.
    pub links: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their length together.
    pub bytes: u64,
}

/// Should two ever be taken for one, garbage stays.
#[derive(Default)]
struct Held(HashSet<Print>);

impl Held {
    fn insert(&mut self, digest: &Digest) {
        self.0.insert(Print::of(digest));
    }

    fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(&Print::of(digest))
    }
}

/// Looks at all files, and says what seems to be garbage and for how long it has.
pub fn look(vault: &Vault) -> Result<Vec<Garbage>, StorageError> {
    vault.suspects.begin();
    let found = find(vault).inspect_err(|_| vault.suspects.give_up())?;
    let mut garbage = vault.suspects.finish(found, vault.clock.tick());
    for Garbage { suspect, size, .. } in &mut garbage {
        let (Suspect::Link(_, digest) | Suspect::Blob(digest)) = suspect;
        // Looking at it is no use of it.
        *size = fs::metadata(vault.layout.blob(digest)).map_or(0, |file| file.len());
    }
    Ok(garbage)
}

/// Removes what has seemed to be garbage for as long as `grace`.
pub fn collect(vault: &Vault, grace: Duration) -> Result<Collected, StorageError> {
    let due: Vec<Suspect> =
        look(vault)?.into_iter().filter(|garbage| garbage.age >= grace).map(|garbage| garbage.suspect).collect();
    let mut collected = Collected::default();
    for batch in due.chunks(BATCH) {
        let _alone = vault.alone()?;
        for suspect in batch.iter().filter(|suspect| vault.suspects.take(suspect)) {
            remove(vault, suspect, &mut collected)?;
        }
    }
    if collected.blobs > 0 {
        vault.held.let_go();
    }
    Ok(collected)
}

fn remove(vault: &Vault, suspect: &Suspect, collected: &mut Collected) -> Result<(), StorageError> {
    match suspect {
        Suspect::Link(name, digest) => {
            let is_left = is_left_to_the_cache(vault, name, digest)?;
            let room = is_left.then(|| vault.space.reserve(length_of(&vault.layout.blob(digest)))).transpose();
            // Then it stays ours, until it is found to be garbage once more.
            if room.is_err() {
                return Ok(());
            }
            if durable::remove(&vault.layout.hosted_repository(name).link(digest))? {
                collected.links += 1;
            }
            vault.index.record(Change::Unlinked { repository: name.clone().into(), digest: *digest });
            release(vault, digest);
        }
        Suspect::Blob(digest) => {
            let size = vault.open(digest)?.map_or(0, |blob| blob.size());
            if vault.remove(digest)? {
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
    }
    Ok(())
}

fn find(vault: &Vault) -> Result<HashSet<Suspect>, StorageError> {
    let (mut found, mut held) = (HashSet::new(), Held::default());
    // Before the links are looked at: what an upload that ends meanwhile adds is cleared by that.
    let busy: HashSet<RepoName> = destinations(&vault.layout)?.into_iter().collect();
    for (name, _) in repositories::hosted(&vault.layout)? {
        let unneeded = unneeded_links(vault, &name, &mut held)?;
        if !busy.contains(&name) {
            found.extend(unneeded.into_iter().map(|digest| Suspect::Link(name.clone(), digest)));
        }
    }
    for (_, directory) in repositories::cached(&vault.layout)? {
        linked(&directory.links())?.iter().for_each(|digest| held.insert(digest));
    }
    for directory in vault.layout.blob_directories() {
        found.extend(blobs(&directory)?.into_iter().filter(|digest| !held.contains(digest)).map(Suspect::Blob));
    }
    Ok(found)
}

/// Whether content that a repository has would be the cache's alone without it. Where the index cannot say, it would.
fn is_left_to_the_cache(vault: &Vault, name: &RepoName, digest: &Digest) -> Result<bool, StorageError> {
    let is_ours = holders(vault, digest, 2)?.iter().any(|holder| holder != name);
    Ok(!is_ours && (!index_is_up_to_date(vault) || !vault.index.repositories_of(digest, 1).is_empty()))
}

/// A repository's links to blobs that none of its manifests names. All it links to is held, needed or not: a blob goes
/// after its links.
fn unneeded_links(vault: &Vault, name: &RepoName, held: &mut Held) -> Result<Vec<Digest>, StorageError> {
    let (mut candidates, mut needed, mut complete) = (Vec::new(), Held::default(), true);
    for digest in linked(&vault.layout.hosted_repository(name).links())? {
        held.insert(&digest);
        match link(vault, name, &digest) {
            Ok(Some(Link::Blob { .. })) => candidates.push(digest),
            Ok(Some(Link::Manifest { .. })) => match names(vault, &digest) {
                Some(manifest) => {
                    manifest.blobs().chain(&manifest.manifests).for_each(|descriptor| needed.insert(&descriptor.digest))
                }
                None => complete = false,
            },
            // Deleted meanwhile.
            Ok(None) => {}
            Err(StorageError::Damaged { .. }) => complete = false,
            Err(error) => return Err(error),
        }
    }
    if !complete {
        tracing::error!(repository = %name, "a manifest cannot be read: what it names is unknown, so nothing is removed");
        return Ok(Vec::new());
    }
    candidates.retain(|digest| !needed.contains(digest));
    Ok(candidates)
}

/// What a manifest says, if it can be read. Looking at it is no use of it.
fn names(vault: &Vault, digest: &Digest) -> Option<Manifest> {
    let bytes = vault.open(digest).ok()??.read_all().ok()?;
    if !digest.matches(&bytes) {
        return None;
    }
    Manifest::parse(&bytes).ok()
}

fn linked(directory: &Path) -> Result<Vec<Digest>, StorageError> {
    Ok(durable::entries(directory)?.iter().filter_map(|(name, _)| layout::parse_file_name(name)).collect())
}

fn blobs(directory: &Path) -> Result<Vec<Digest>, StorageError> {
    let algorithm = directory.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let digests = durable::entries(directory)?;
    Ok(digests.iter().filter_map(|(name, _)| format!("{algorithm}:{name}").parse().ok()).collect())
}
