//! Bringing back what a backup has, into a store that nobody else uses meanwhile. Blocks.
//!
//! Everything is found right before anything of its image is linked, and a repository's tags come last: what was cut off,
//! or is damaged, is not there, and restoring again goes on with it. What is there already stays, and what is pinned. Pinned
//! images of other registries go into the cache, as far as it has room for them, under the tags of which it knows nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::below::{Below, spread};
use super::entry::{CURRENT, Entry, FORMAT, Listing, PINS};
use super::error::BackupError;
use super::progress::Progress;
use super::report::{Damage, RestoreReport};
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, Referrer, RepoName, Repository};
use crate::oci_layout::{Directory, LayoutError};
use crate::storage::{Home, Hosted, Link, StorageError, Store, Verdict};

/// Restores all that `layout` has. When this returns, it is durable. With `force`, tags that mean something else here get
/// the meaning that they have there.
///
/// # Errors
/// It is no backup, or something would be overwritten, and nothing was restored then; or the disk fails.
pub fn restore(
    layout: &Directory,
    store: &Store,
    force: bool,
    progress: &Progress,
) -> Result<RestoreReport, BackupError> {
    // Ours come first.
    let mut repositories: BTreeMap<Home, Vec<Entry>> = BTreeMap::new();
    for entry in entries(layout)? {
        repositories.entry(entry.home.clone()).or_default().push(entry);
    }
    let hosted = store.hosted();
    if !force {
        let conflicts = conflicts(&hosted, repositories.values().flatten())?;
        if !conflicts.is_empty() {
            return Err(BackupError::Conflicts(conflicts));
        }
    }
    let mut restore =
        Restore { layout, store, hosted, progress, report: RestoreReport::default(), done: HashMap::new() };
    progress.expect(restore.length(repositories.values().flatten())?);
    for (home, entries) in &repositories {
        restore.repository(home, entries)?;
    }
    restore.pins(force)?;
    restore.report.damaged.sort();
    Ok(restore.report)
}

fn entries(layout: &Directory) -> Result<Vec<Entry>, BackupError> {
    let directory = || layout.root().display().to_string();
    let index = layout.index()?.ok_or_else(|| LayoutError::Absent(layout.root().to_owned()))?;
    match index.annotations.get(FORMAT).map(String::as_str) {
        Some(CURRENT) => Ok(Listing::read(&index).map_err(BackupError::Index)?.entries),
        Some(found) => Err(BackupError::Format { directory: directory(), found: found.to_owned() }),
        None => Err(BackupError::NotABackup(directory())),
    }
}

/// The tags of ours that mean something else. One that cannot be read means nothing any more.
fn conflicts<'a>(hosted: &Hosted, entries: impl Iterator<Item = &'a Entry>) -> Result<Vec<String>, StorageError> {
    let mut conflicts = Vec::new();
    for entry in entries {
        let (Some(tag), Home::Hosted(name)) = (&entry.tag, &entry.home) else { continue };
        match hosted.tag(name, tag) {
            Ok(Some(meant)) if meant != entry.digest => conflicts.push(format!("{name}:{tag}")),
            Ok(_) | Err(StorageError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(conflicts)
}

struct Restore<'a> {
    layout: &'a Directory,
    store: &'a Store,
    hosted: Hosted,
    progress: &'a Progress,
    report: RestoreReport,
    /// Content that was looked at, and its length here; or why it is not to be had.
    done: HashMap<Digest, Result<u64, String>>,
}

impl Restore<'_> {
    /// What is pinned there is pinned here, too; with `force` nothing else is.
    fn pins(&mut self, force: bool) -> Result<(), BackupError> {
        let Some(text) = self.layout.kept(PINS)? else { return Ok(()) };
        let Ok(pinned) = serde_json::from_slice::<Vec<String>>(&text) else {
            let (image, reason) = ("what was pinned".to_owned(), "it cannot be read any more".to_owned());
            self.report.damaged.push(Damage { repository: PINS.to_owned(), image, reason });
            return Ok(());
        };
        let mut pins = match self.store.pins() {
            Ok(pins) if !force => pins,
            // What cannot be read pins nothing.
            Ok(_) | Err(StorageError::Damaged { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        pins.extend(pinned.into_iter().filter(|pattern| !pins.contains(pattern)).collect::<Vec<_>>());
        self.store.set_pins(&pins)?;
        self.report.pins = pins.len() as u64;
        Ok(())
    }

    /// How much there is to read, for those who watch. What is missing has no length.
    fn length<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<u64, LayoutError> {
        let (mut seen, mut length) = (HashSet::new(), 0);
        for entry in entries.filter(|entry| seen.insert(entry.digest)) {
            let mut parts = vec![entry.digest];
            if let Ok(bytes) = self.layout.read(&entry.digest, MAX_MANIFEST as u64)
                && let Ok(below) = Below::of(&bytes)
            {
                parts.extend(below.blobs.iter().chain(&below.optional).map(|(blob, _)| *blob));
            }
            for part in parts {
                length += self.layout.size(&part)?.unwrap_or_default();
            }
        }
        Ok(length)
    }

    fn repository(&mut self, home: &Home, entries: &[Entry]) -> Result<(), BackupError> {
        let mut manifests: BTreeMap<Digest, (&Entry, Vec<u8>)> = BTreeMap::new();
        let (mut below, mut broken) = (HashMap::new(), HashMap::new());
        for entry in entries {
            match self.manifest(entry) {
                Ok((bytes, named)) => {
                    below.insert(entry.digest, named);
                    manifests.insert(entry.digest, (entry, bytes));
                }
                Err(reason) => drop(broken.insert(entry.digest, reason)),
            }
        }
        for (digest, (entry, _)) in &manifests {
            if let Some(reason) = self.parts(entry, &below[digest], &manifests, &broken)? {
                broken.insert(*digest, reason);
            }
        }
        spread(&mut broken, &below);
        for entry in entries {
            if let Some(reason) = broken.get(&entry.digest) {
                let (repository, image) = (entry.repository(), entry.reference());
                self.report.damaged.push(Damage { repository, image, reason: reason.clone() });
            }
        }
        manifests.retain(|digest, _| !broken.contains_key(digest));
        match home {
            _ if manifests.is_empty() => Ok(()),
            Home::Hosted(name) => self.link(name, entries, &manifests, &below),
            Home::Cached(repository) => self.link_cached(repository, entries, &manifests, &below),
        }
    }

    /// A manifest, found right.
    fn manifest(&self, entry: &Entry) -> Result<(Vec<u8>, Below), String> {
        let bytes = self.layout.read(&entry.digest, MAX_MANIFEST as u64).map_err(|error| error.to_string())?;
        let below = Below::of(&bytes).map_err(|error| error.to_string())?;
        Ok((bytes, below))
    }

    /// Takes in what a manifest is made of. Says what of it is not to be had, if anything.
    fn parts(
        &mut self,
        entry: &Entry,
        below: &Below,
        manifests: &BTreeMap<Digest, (&Entry, Vec<u8>)>,
        broken: &HashMap<Digest, String>,
    ) -> Result<Option<String>, BackupError> {
        let is_here = |child: &Digest| manifests.contains_key(child) || broken.contains_key(child);
        if let Some(child) = below.manifests.iter().find(|child| !entry.absent.contains(child) && !is_here(child)) {
            return Ok(Some(format!("its manifest {child} is not in the backup")));
        }
        let mut wrong = self.take(&entry.home, &entry.digest)?.err();
        for (blob, _) in below.blobs.iter().filter(|(blob, _)| !entry.absent.contains(blob)) {
            let taken = self.take(&entry.home, blob)?;
            wrong = wrong.or(taken.err());
        }
        for (blob, _) in below.optional.iter().filter(|(blob, _)| !entry.absent.contains(blob)) {
            if self.layout.size(blob)?.is_some() {
                // One that is damaged can be had where it is made.
                let _ = self.take(&entry.home, blob)?;
            }
        }
        Ok(wrong)
    }

    /// Has content in the store, right and durable; says how long it is, or what is wrong with the backup's.
    fn take(&mut self, home: &Home, digest: &Digest) -> Result<Result<u64, String>, BackupError> {
        if let Some(done) = self.done.get(digest) {
            return Ok(done.clone());
        }
        let size = self.layout.size(digest)?;
        let taken = match self.here(digest)? {
            Some(size) => Ok(size),
            None => self.copy(home, digest)?,
        };
        self.progress.advance(size.unwrap_or_default());
        self.done.insert(*digest, taken.clone());
        Ok(taken)
    }

    /// How long it is in the store, where it was found right.
    fn here(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        match self.store.examine(digest)? {
            Verdict::Right | Verdict::Summed => Ok(self.store.blob(digest)?.map(|blob| blob.size())),
            Verdict::Damaged | Verdict::Gone => Ok(None),
        }
    }

    fn copy(&mut self, home: &Home, digest: &Digest) -> Result<Result<u64, String>, BackupError> {
        let announced = self.layout.size(digest)?.unwrap_or_default();
        let (mut ingest, room) = match home {
            Home::Hosted(_) => (self.hosted.ingest(digest, announced)?, None),
            Home::Cached(_) => match self.store.ingest_beside(digest, announced) {
                Ok((ingest, room)) => (ingest, Some(room)),
                Err(error @ StorageError::NoRoom) => return Ok(Err(error.to_string())),
                Err(error) => return Err(error.into()),
            },
        };
        let read = self.layout.check(digest, |piece| ingest.append(piece).map_err(BackupError::from));
        let size = ingest.passed();
        match read {
            Ok(()) => {}
            Err(BackupError::Layout(error)) => {
                ingest.discard();
                return Ok(Err(error.to_string()));
            }
            Err(error) => {
                ingest.discard();
                return Err(error);
            }
        }
        match room {
            None => self.hosted.commit(digest, ingest)?,
            Some(room) => self.store.commit(digest, ingest, room)?,
        };
        self.report.copied_blobs += 1;
        self.report.copied_bytes += size;
        Ok(Ok(size))
    }

    /// Lets the repository have what is here now, its tags last.
    fn link(
        &mut self,
        name: &RepoName,
        entries: &[Entry],
        manifests: &BTreeMap<Digest, (&Entry, Vec<u8>)>,
        below: &HashMap<Digest, Below>,
    ) -> Result<(), BackupError> {
        let edit = self.hosted.edit(name)?;
        for (digest, (entry, bytes)) in manifests {
            for (blob, _) in below[digest].blobs.iter().chain(&below[digest].optional) {
                if let Some(Ok(size)) = self.done.get(blob) {
                    edit.add_blob(blob, *size)?;
                }
            }
            if let Some(referrer) = Referrer::read(bytes, *digest, entry.media_type) {
                let descriptor = serde_json::to_vec(&referrer.descriptor).unwrap_or_default();
                edit.add_referrer(&referrer.subject, digest, &descriptor)?;
            }
            edit.set_link(digest, Link::Manifest { media_type: entry.media_type, size: bytes.len() as u64 })?;
            self.report.manifests += 1;
        }
        for entry in entries.iter().filter(|entry| manifests.contains_key(&entry.digest)) {
            if let Some(tag) = &entry.tag {
                edit.set_tag(tag, &entry.digest)?;
                self.report.tags += 1;
            }
        }
        self.report.repositories += 1;
        Ok(())
    }

    /// The same for the cache, where a tag of which something is known means what it meant.
    fn link_cached(
        &mut self,
        repository: &Repository,
        entries: &[Entry],
        manifests: &BTreeMap<Digest, (&Entry, Vec<u8>)>,
        below: &HashMap<Digest, Below>,
    ) -> Result<(), BackupError> {
        let mut named: HashSet<&Digest> = HashSet::new();
        for (digest, (entry, bytes)) in manifests {
            let Below { blobs, optional, manifests: children } = &below[digest];
            for (blob, _) in blobs.iter().chain(optional).filter(|(blob, _)| !entry.absent.contains(blob)) {
                if let Some(Ok(size)) = self.done.get(blob) {
                    self.store.add_link(repository, blob, Link::Blob { size: *size })?;
                }
            }
            let link = Link::Manifest { media_type: entry.media_type, size: bytes.len() as u64 };
            self.store.add_link(repository, digest, link)?;
            named.extend(children);
        }
        for entry in entries.iter().filter(|entry| manifests.contains_key(&entry.digest)) {
            if let Some(tag) = &entry.tag {
                self.store.recall_tag(repository, tag, &entry.digest, entry.learnt)?;
            }
        }
        self.report.pinned_images += manifests.keys().filter(|digest| !named.contains(digest)).count() as u64;
        Ok(())
    }
}
