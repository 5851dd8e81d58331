//! The index against files that are a map in memory: what it says, what it survives. Never looks at its rows except through
//! its public face.

mod damage;
mod faults;
mod model;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tempfile::TempDir;

use super::{Change, Index, Metrics, Settings, State, Truth};
use crate::clock::Clock;
use crate::oci::{Digest, MediaType, RepoName, Repository, Tag};
use crate::storage::home::Home;
use crate::storage::link::Link;

const LONG: Duration = Duration::from_secs(60);

/// The files, as a map.
#[derive(Clone, Debug, Default)]
struct Model {
    blobs: BTreeMap<Digest, (u64, u64)>,
    links: BTreeMap<(Home, Digest), Link>,
    tags: BTreeMap<(Home, Tag), (Digest, u64)>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::BlobStored { digest, size, at } => {
                self.blobs.insert(digest, (size, at));
            }
            Change::BlobRemoved { digest } => {
                self.blobs.remove(&digest);
            }
            Change::Linked { repository, digest, link } => {
                self.links.insert((repository, digest), link);
            }
            Change::Unlinked { repository, digest } => {
                self.links.remove(&(repository, digest));
            }
            Change::TagSet { repository, tag, digest, at } => {
                self.tags.insert((repository, tag), (digest, at));
            }
            Change::TagChecked { repository, tag, at } => {
                self.tags.entry((repository, tag)).and_modify(|(_, checked)| *checked = at);
            }
            Change::TagRemoved { repository, tag } => {
                self.tags.remove(&(repository, tag));
            }
            Change::Used { digest, at } => {
                self.blobs.entry(digest).and_modify(|(_, used)| *used = at);
            }
        }
    }

    fn changes(&self) -> Vec<Change> {
        let blobs = self.blobs.iter().map(|(&digest, &(size, at))| Change::BlobStored { digest, size, at });
        let links = self.links.iter().map(|((repository, digest), &link)| Change::Linked {
            repository: repository.clone(),
            digest: *digest,
            link,
        });
        let tags = self.tags.iter().map(|((repository, tag), &(digest, at))| Change::TagSet {
            repository: repository.clone(),
            tag: tag.clone(),
            digest,
            at,
        });
        blobs.chain(links).chain(tags).collect()
    }
}

/// What the index is told the files are.
#[derive(Default)]
struct Files {
    model: Mutex<Model>,
    unreadable: Mutex<bool>,
}

impl Files {
    fn model(&self) -> Model {
        self.model.lock().unwrap().clone()
    }

    fn change(&self, change: &Change) {
        self.model.lock().unwrap().apply(change);
    }
}

impl Truth for Files {
    fn walk(&self, each: &mut dyn FnMut(Change) -> ControlFlow<()>) -> io::Result<()> {
        if *self.unreadable.lock().unwrap() {
            return Err(io::Error::other("a test says so"));
        }
        let changes = self.model().changes();
        let _broken_off = changes.into_iter().try_for_each(each);
        Ok(())
    }

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.model().blobs.is_empty())
    }
}

/// An index directory with its files.
struct House {
    directory: TempDir,
    files: Arc<Files>,
    clock: Clock,
    metrics: Metrics,
}

impl House {
    fn new() -> House {
        House::within(tempfile::tempdir().unwrap())
    }

    fn within(directory: TempDir) -> House {
        silence_sled();
        let metrics = Metrics::new(&prometheus::Registry::new());
        House { directory, files: Arc::default(), clock: Clock::system(), metrics }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("index")
    }

    fn settings(&self) -> Settings {
        Settings { cache_capacity: 8 << 20, ballast: 1 << 20, ..Settings::new(self.path()) }
    }

    fn open_at_once(&self) -> Index {
        let truth: Arc<dyn Truth> = Arc::<Files>::clone(&self.files);
        Index::open(self.settings(), truth, self.clock.clone(), self.metrics.clone())
    }

    fn open(&self) -> Index {
        let index = self.open_at_once();
        assert!(index.settle(LONG), "{:?}", index.state());
        index
    }

    fn change(&self, index: &Index, change: Change) {
        self.files.change(&change);
        index.record(change);
    }

    fn fill(&self, index: &Index, images: u64) {
        (0..images).flat_map(image).for_each(|change| self.change(index, change));
    }

    fn rebuilds(&self) -> u64 {
        self.metrics.rebuilds.get()
    }
}

/// The index is ready and right.
fn assert_right(index: &Index, files: &Files) {
    assert!(index.settle(LONG), "{:?}", index.state());
    assert_eq!(index.state(), State::Ready);
    let differences = index.verify().unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
    let model = files.model();
    assert_eq!(index.totals().blobs, model.blobs.len() as u64);
    assert_eq!(index.totals().bytes, model.blobs.values().map(|(size, _)| size).sum::<u64>());
}

fn digest(number: u64) -> Digest {
    Digest::sha256(&number.to_le_bytes())
}

fn repository(text: &str) -> Repository {
    let (registry, name) = text.split_once('/').unwrap();
    Repository { registry: registry.parse().unwrap(), name: name.parse().unwrap() }
}

fn stored(number: u64, at: u64) -> Change {
    Change::BlobStored { digest: digest(number), size: number, at }
}

/// A manifest and a layer in a repository, with a tag.
fn image(number: u64) -> Vec<Change> {
    let name = repository(&format!("docker.io/library/image-{}", number % 50));
    let (manifest, layer) = (number * 2, number * 2 + 1);
    let link = |number: u64, link| Change::Linked { repository: name.clone().into(), digest: digest(number), link };
    vec![
        stored(layer, 1_000),
        link(layer, Link::Blob { size: layer }),
        stored(manifest, 1_000),
        link(manifest, Link::Manifest { media_type: MediaType::OciManifest, size: manifest }),
        Change::TagSet {
            repository: name.clone().into(),
            tag: format!("v{number}").parse().unwrap(),
            digest: digest(manifest),
            at: 1_000,
        },
    ]
}

/// sled's own panics are expected here, and only noise.
fn silence_sled() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.location().is_some_and(|place| place.file().contains("sled-0.34")) {
                usual(info);
            }
        }));
    });
}

#[test]
fn what_is_recorded_is_answered_and_survives_a_restart() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 120);
    assert_right(&index, &house.files);
    assert_answers(&index);
    assert!(index.close(LONG));
    let index = house.open();
    assert_right(&index, &house.files);
    assert_answers(&index);
    assert_eq!(house.rebuilds(), 0);
    assert_eq!(house.metrics.sync_mode.get(), i64::from(takes_sync_flag(&house)));
}

#[test]
fn what_changed_in_a_session_that_never_opened_the_index_is_not_overlooked() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 20);
    assert!(index.settle(LONG) && index.close(LONG));
    // A process that was killed while its index was still being opened: it changed files, and told nobody who lives.
    assert!(!super::place::Place::new(house.path()).announce_session().unwrap());
    house.files.change(&Change::BlobRemoved { digest: digest(3) });
    house.files.change(&stored(1_000, 2_000));
    let index = house.open();
    assert_right(&index, &house.files);
    assert!(index.close(LONG));
    assert!(
        !super::place::Place::new(house.path()).announce_session().unwrap(),
        "a session that has begun is told by the epoch"
    );
}

/// Whether this machine's temporary directory lies on a file system that keeps an index's writes in order.
fn takes_sync_flag(house: &House) -> bool {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let parent = std::fs::File::open(house.path().parent().unwrap()).unwrap();
    ioctl_getflags(&parent).is_ok_and(|flags| ioctl_setflags(&parent, flags | IFlags::SYNC).is_ok())
}

fn assert_answers(index: &Index) {
    let (first, latest) = (repository("docker.io/library/image-0"), "v100".parse().unwrap());
    assert_eq!(index.blob(&digest(7)).map(|blob| (blob.size, blob.last_used)), Some((7, 1_000)));
    assert_eq!(index.tag_checked(&first, &latest), Some(1_000));
    assert_eq!(index.tags(&first, Some(&"v0".parse().unwrap()), 1), ["v100".parse().unwrap()]);
    assert_eq!(index.repositories_of(&digest(0), 9), std::slice::from_ref(&first));
    assert_eq!(index.links(&first, None, 99).len(), 6);
    assert_eq!(index.blobs(None, 99).len(), 99);
}

#[test]
fn the_catalogue_is_in_bytewise_order_and_pages_without_gaps() {
    let house = House::new();
    let index = house.open();
    let names = ["b.io/a", "a.io/a/b", "a.io/a-b", "a.io/a", "a.io/a.b", "a.io:5000/a", "a.io/a0", "a.io/a/b/c", "a/a"];
    for (number, name) in names.iter().enumerate() {
        let (repository, digest) = (Home::from(repository(name)), digest(number as u64));
        // Some have only a tag, some only a link.
        if number % 2 == 0 {
            house.change(&index, Change::Linked { repository, digest, link: Link::Blob { size: 1 } });
        } else {
            let tag = "latest".parse().unwrap();
            house.change(&index, Change::TagSet { repository, tag, digest, at: 1 });
        }
    }
    // Hosted ones of the same names are others.
    let mut hosted: Vec<RepoName> = ["a", "a/b", "a-b", "z"].map(|name| name.parse().unwrap()).into();
    hosted.sort();
    for name in &hosted {
        let (repository, link) = (Home::from(name.clone()), Link::Blob { size: 1 });
        house.change(&index, Change::Linked { repository, digest: digest(0), link });
    }
    assert_right(&index, &house.files);
    assert_eq!(index.hosted(None, 99), hosted);
    assert_eq!(index.hosted(hosted.first(), 2), hosted[1..3]);
    assert_eq!(index.hosts_of(&digest(0), 99), hosted);
    assert_eq!(index.repositories_of(&digest(0), 99), [repository("b.io/a")]);
    let mut expected: Vec<_> = names.iter().map(|name| repository(name)).collect();
    expected.sort();
    assert_eq!(index.repositories(None, 99), expected);
    for limit in 1..4 {
        let mut paged: Vec<Repository> = Vec::new();
        loop {
            let page = index.repositories(paged.last(), limit);
            paged.extend(page.iter().cloned());
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(paged, expected);
    }
}

#[test]
fn a_use_is_kept_to_the_minute() {
    let house = House::new();
    let index = house.open();
    house.change(&index, stored(1, 1_000));
    let last_used = |at| {
        index.record(Change::Used { digest: digest(1), at });
        assert!(index.settle(LONG));
        index.blob(&digest(1)).unwrap().last_used
    };
    assert_eq!(last_used(1_019), 1_000);
    assert_eq!(last_used(1_020), 1_020);
    assert_eq!(last_used(1_079), 1_020);
    assert_eq!(last_used(1_080), 1_080);
    assert_eq!(last_used(500), 500, "a clock that was set back is believed");
}

#[test]
fn when_too_much_is_recorded_the_files_make_up_for_it() {
    let house = House::new();
    let index = house.open_at_once();
    for number in 0..super::queue::CAPACITY as u64 + 20_000 {
        house.change(&index, stored(number, 1));
    }
    assert_right(&index, &house.files);
}

#[test]
fn changes_during_a_walk_are_neither_lost_nor_undone() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 2_000);
    for round in 0..20 {
        index.compare();
        for number in 0..200 {
            let number = number * 20 + round;
            house.change(&index, Change::BlobRemoved { digest: digest(number) });
            house.change(&index, stored(10_000 + number, 5));
            for change in image(number) {
                if let Change::Linked { repository, digest, .. } = change {
                    house.change(&index, Change::Unlinked { repository, digest });
                }
            }
        }
    }
    assert_right(&index, &house.files);
}

#[test]
fn files_that_changed_behind_its_back_are_found_by_a_comparison() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 100);
    assert!(index.settle(LONG));
    *house.files.model.lock().unwrap() = Model::default();
    (50..200).flat_map(image).for_each(|change| house.files.change(&change));
    assert!(!index.verify().unwrap().is_empty());
    index.compare();
    assert_right(&index, &house.files);
    assert_eq!(house.rebuilds(), 0);
}
