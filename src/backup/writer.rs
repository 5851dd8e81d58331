//! Making a backup, or bringing one up to date, while the source goes on changing.
//!
//! What a repository had when it was listed is what the backup has of it. What was deleted since then and is collected
//! already is left out, with whatever named it; of a cached image there is what there is, for upstream has the rest. Content
//! is copied, never linked: what one file loses the other still has. The index is replaced last: a backup that is cut off
//! leaves the one before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::below::{Below, content, spread};
use super::entry::{CURRENT, Entry, FORMAT, Listing, PINS};
use super::error::BackupError;
use super::progress::Progress;
use super::report::{BackupReport, Damage};
use super::source::{PIECE, Source, SourceError};
use crate::oci::Digest;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci_layout::{Directory, Incoming, LayoutError};
use crate::storage::Home;
use crate::task;

/// Contents that are copied side by side.
const PARALLEL: usize = 4;

/// How it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is in the backup already is read and checked, too; otherwise its length says that it is right.
    pub verify: bool,
    /// What nothing in it needs any more is removed.
    pub prune: bool,
}

/// Some content that is to be in the backup.
#[derive(Clone, Debug)]
struct Wanted {
    /// One that has it.
    home: Home,
    digest: Digest,
    size: u64,
    /// What is there already counts as right only after a look at all of it.
    verify: bool,
}

/// What became of it.
enum Fetched {
    Kept,
    Copied(u64),
    Gone,
    Lost(String),
}

/// Copies all that `source` has into `layout`. Blocks nobody who uses the source for longer than a listing takes.
///
/// # Errors
/// The source or the disk fails, or there is someone else's layout. The backup that was there is as it was then.
pub async fn back_up(
    source: &impl Source,
    layout: Arc<Directory>,
    options: Options,
    progress: &Progress,
) -> Result<BackupReport, BackupError> {
    check_format(&layout)?;
    let mut report = BackupReport::default();
    let pins = match source.pins().await {
        Err(SourceError::Lost(reason)) => {
            // What an earlier backup has of them stays.
            report.damaged.push(Damage { repository: PINS.to_owned(), image: "what was pinned".to_owned(), reason });
            None
        }
        pins => Some(pins?),
    };
    let mut entries = Vec::new();
    for name in source.repositories().await? {
        let Listing { entries: listed, damaged } = source.listing(&name).await?;
        let (repository, reason) = (name.to_string(), "it cannot be read any more".to_owned());
        let damage = |image| Damage { repository: repository.clone(), image, reason: reason.clone() };
        report.damaged.extend(damaged.into_iter().map(damage));
        entries.extend(listed);
    }
    entries.extend(source.pinned().await?.entries);

    let mut copy = Copy { source, layout: &layout, progress, report: &mut report, missing: HashMap::new() };
    let manifests = entries.iter().map(|entry| Wanted {
        home: entry.home.clone(),
        digest: entry.digest,
        size: entry.size,
        verify: true,
    });
    copy.fetch(distinct(manifests)).await?;
    let below = read_manifests(&layout, &entries, &mut copy.missing).await?;
    let blobs = entries.iter().flat_map(|entry| {
        let below = below.get(&entry.digest);
        let blobs = below.into_iter().flat_map(|below| below.blobs.iter().chain(&below.optional));
        blobs.filter(|(digest, _)| !entry.absent.contains(digest)).map(|(digest, size)| Wanted {
            home: entry.home.clone(),
            digest: *digest,
            size: *size,
            verify: options.verify,
        })
    });
    copy.fetch(distinct(blobs)).await?;
    let missing = copy.missing;

    let still_there = look_again(source, &entries, &missing, &below).await?;
    let entries = judge(entries, &missing, &below, &still_there, &mut report);
    sum_up(&mut report, &entries, &below);
    let listing = Listing { entries, damaged: Vec::new() };
    report.pins = pins.as_ref().map_or(0, |pins| pins.len() as u64);
    task::blocking(move || {
        if let Some(pins) = pins {
            layout.keep(PINS, &serde_json::to_vec(&pins).unwrap_or_default(), 0o644)?;
        }
        layout.publish(&listing.to_index())?;
        // What is left of an image that is lost elsewhere may be all that there is of it.
        if options.prune && report.damaged.is_empty() {
            let removed = layout.prune(&content(&listing.entries, &below))?;
            (report.removed_blobs, report.removed_bytes) = (removed.blobs, removed.bytes);
        }
        Ok(report)
    })
    .await
}

/// That it is safe to put another index in the place of the one that is there.
fn check_format(layout: &Directory) -> Result<(), BackupError> {
    let Some(index) = layout.index()? else { return Ok(()) };
    let directory = layout.root().display().to_string();
    match index.annotations.get(FORMAT).map(String::as_str) {
        Some(CURRENT) => Ok(()),
        Some(found) => Err(BackupError::Format { directory, found: found.to_owned() }),
        None => Err(BackupError::NotABackup(directory)),
    }
}

fn distinct(wanted: impl Iterator<Item = Wanted>) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    wanted.filter(|wanted| seen.insert(wanted.digest)).collect()
}

struct Copy<'a, S> {
    source: &'a S,
    layout: &'a Arc<Directory>,
    progress: &'a Progress,
    report: &'a mut BackupReport,
    /// What could not be had: nothing, where it is gone, and why, where it is lost.
    missing: HashMap<Digest, Option<String>>,
}

impl<S: Source> Copy<'_, S> {
    async fn fetch(&mut self, wanted: Vec<Wanted>) -> Result<(), BackupError> {
        self.progress.expect(wanted.iter().map(|wanted| wanted.size).sum());
        let (source, layout, progress) = (self.source, self.layout, self.progress);
        let each = wanted.into_iter().map(|wanted| async move {
            let fetched = fetch(source, layout, &wanted).await;
            progress.advance(wanted.size);
            (wanted.digest, fetched)
        });
        let mut done = stream::iter(each).buffer_unordered(PARALLEL);
        while let Some((digest, fetched)) = done.next().await {
            match fetched? {
                Fetched::Kept => {}
                Fetched::Copied(bytes) => {
                    self.report.copied_blobs += 1;
                    self.report.copied_bytes += bytes;
                }
                Fetched::Gone => drop(self.missing.insert(digest, None)),
                Fetched::Lost(reason) => drop(self.missing.insert(digest, Some(reason))),
            }
        }
        Ok(())
    }
}

async fn fetch(source: &impl Source, layout: &Arc<Directory>, wanted: &Wanted) -> Result<Fetched, BackupError> {
    let Wanted { home, digest, .. } = wanted;
    if is_here(layout.clone(), wanted.clone()).await? {
        return Ok(Fetched::Kept);
    }
    let mut incoming: Option<Incoming> = None;
    let mut from = 0;
    loop {
        let piece = match source.piece(home, digest, from).await {
            Ok(piece) => piece,
            Err(SourceError::Gone) => return Ok(Fetched::Gone),
            Err(SourceError::Lost(reason)) => return Ok(Fetched::Lost(reason)),
            Err(error) => return Err(error.into()),
        };
        let length = piece.len() as u64;
        from += length;
        let (layout, digest) = (layout.clone(), *digest);
        let begun = task::blocking(move || {
            let mut begun = match incoming {
                Some(begun) => begun,
                None => layout.begin(&digest)?,
            };
            begun.append(&piece).map(|()| begun)
        })
        .await?;
        if length < PIECE {
            return match task::blocking(move || begun.finish()).await {
                Ok(bytes) => Ok(Fetched::Copied(bytes)),
                Err(LayoutError::Damaged { .. }) if matches!(home, Home::Cached(_)) => Ok(Fetched::Gone),
                Err(error @ LayoutError::Damaged { .. }) => Ok(Fetched::Lost(error.to_string())),
                Err(error) => Err(error.into()),
            };
        }
        incoming = Some(begun);
    }
}

async fn is_here(layout: Arc<Directory>, wanted: Wanted) -> Result<bool, LayoutError> {
    task::blocking(move || {
        let is_here = layout.size(&wanted.digest)? == Some(wanted.size);
        // One that cannot be read is copied anew.
        Ok(is_here && (!wanted.verify || layout.check(&wanted.digest, |_| Ok::<(), LayoutError>(())).is_ok()))
    })
    .await
}

/// What the manifests name that were copied. One that cannot be read is missing.
async fn read_manifests(
    layout: &Arc<Directory>,
    entries: &[Entry],
    missing: &mut HashMap<Digest, Option<String>>,
) -> Result<HashMap<Digest, Below>, BackupError> {
    let digests: HashSet<Digest> =
        entries.iter().map(|entry| entry.digest).filter(|digest| !missing.contains_key(digest)).collect();
    let layout = layout.clone();
    let read = task::blocking(move || {
        let read = digests.into_iter().map(|digest| {
            let bytes = layout.read(&digest, MAX_MANIFEST as u64)?;
            Ok((digest, Below::of(&bytes)))
        });
        read.collect::<Result<Vec<_>, LayoutError>>()
    });
    let mut found = HashMap::new();
    for (digest, below) in read.await? {
        match below {
            Ok(below) => drop(found.insert(digest, below)),
            Err(error) => drop(missing.insert(digest, Some(error.to_string()))),
        }
    }
    Ok(found)
}

/// Of our repositories that lacked something, the manifests that are still there. A cached image may lack what it likes.
async fn look_again(
    source: &impl Source,
    entries: &[Entry],
    missing: &HashMap<Digest, Option<String>>,
    below: &HashMap<Digest, Below>,
) -> Result<HashMap<Home, HashSet<Digest>>, BackupError> {
    let gone = |digest: &Digest| matches!(missing.get(digest), Some(None));
    let lacks = |entry: &&Entry| {
        let below = below.get(&entry.digest);
        gone(&entry.digest) || below.is_some_and(|below| below.blobs.iter().any(|(blob, _)| gone(blob)))
    };
    let mut still_there = HashMap::new();
    for entry in entries.iter().filter(lacks) {
        if let Home::Hosted(name) = &entry.home
            && !still_there.contains_key(&entry.home)
        {
            let listing = source.listing(name).await?;
            let manifests = listing.entries.into_iter().map(|entry| entry.digest).collect();
            still_there.insert(entry.home.clone(), manifests);
        }
    }
    Ok(still_there)
}

/// The entries that are whole, but for what was deleted on purpose. What is lost is told.
fn judge(
    entries: Vec<Entry>,
    missing: &HashMap<Digest, Option<String>>,
    below: &HashMap<Digest, Below>,
    still_there: &HashMap<Home, HashSet<Digest>>,
    report: &mut BackupReport,
) -> Vec<Entry> {
    let lacks = |digest: &Digest| missing.contains_key(digest);
    let mut broken: HashMap<Digest, String> = HashMap::new();
    for entry in &entries {
        let parts = below.get(&entry.digest).into_iter().flat_map(|below| &below.blobs).map(|(blob, _)| blob);
        let lost = std::iter::once(&entry.digest).chain(parts).find_map(|part| missing.get(part)?.clone());
        if let Some(reason) = lost {
            broken.insert(entry.digest, reason);
        }
    }
    spread(&mut broken, below);
    let mut whole: Vec<Entry> = Vec::new();
    for mut entry in entries {
        if let Some(reason) = broken.get(&entry.digest) {
            let (repository, image) = (entry.repository(), entry.reference());
            report.damaged.push(Damage { repository, image, reason: reason.clone() });
            continue;
        }
        // One without a word of what is below was itself deleted meanwhile.
        let Some(below) = below.get(&entry.digest) else { continue };
        entry.absent.extend(below.blobs.iter().map(|(blob, _)| *blob).filter(lacks));
        let is_there = still_there.get(&entry.home).is_none_or(|there| there.contains(&entry.digest));
        if entry.absent.is_empty() || is_there {
            whole.push(entry);
        }
    }
    let kept: HashSet<(Home, Digest)> = whole.iter().map(|entry| (entry.home.clone(), entry.digest)).collect();
    for entry in &mut whole {
        let children = below.get(&entry.digest).into_iter().flat_map(|below| &below.manifests);
        let absent = children.filter(|child| !kept.contains(&(entry.home.clone(), **child)));
        entry.absent.extend(absent);
    }
    report.damaged.sort();
    whole
}

fn sum_up(report: &mut BackupReport, entries: &[Entry], below: &HashMap<Digest, Below>) {
    let count = |set: HashSet<(&Home, &Digest)>| set.len() as u64;
    let (pinned, ours): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.is_cached());
    report.repositories = ours.iter().map(|entry| &entry.home).collect::<HashSet<_>>().len() as u64;
    report.manifests = count(ours.iter().map(|entry| (&entry.home, &entry.digest)).collect());
    report.tags = ours.iter().filter(|entry| entry.tag.is_some()).count() as u64;
    let manifests = |entry: &Entry| below.get(&entry.digest).map_or(&[][..], |below| &below.manifests);
    let named: HashSet<(&Home, &Digest)> =
        pinned.iter().flat_map(|entry| manifests(entry).iter().map(|child| (&entry.home, child))).collect();
    let images = pinned.iter().map(|entry| (&entry.home, &entry.digest)).filter(|image| !named.contains(image));
    report.pinned_images = count(images.collect());
    report.blobs = content(entries, below).len() as u64;
    let incomplete = ours.iter().filter(|entry| !entry.absent.is_empty());
    report.incomplete = count(incomplete.map(|entry| (&entry.home, &entry.digest)).collect());
}
