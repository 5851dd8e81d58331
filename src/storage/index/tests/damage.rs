//! Whatever is done to the index's files while it is stopped: it starts, no panic escapes, and it ends up saying what the
//! files say. What it says meanwhile may be too little, never a wrong size.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// What is done.
type Harm = fn(&House, &mut StdRng);

const HARMS: [(&str, Harm); 12] = [
    ("bit flipped in the database", |house, random| flip(&house.file("db"), random)),
    ("bit flipped in the database, again", |house, random| flip(&house.file("db"), random)),
    ("bit flipped in any file", |house, random| {
        let files = house.home_files();
        flip(&files[random.random_range(0..files.len())], random);
    }),
    ("bit flipped in the epoch file", |house, random| flip(&house.epoch(), random)),
    ("database cut", |house, random| cut(&house.file("db"), random)),
    ("database emptied", |house, _| fs::File::create(house.file("db")).map(drop).unwrap()),
    ("any file cut", |house, random| {
        let files = house.home_files();
        cut(&files[random.random_range(0..files.len())], random);
    }),
    ("database file deleted", |house, _| fs::remove_file(house.file("db")).unwrap()),
    ("index directory deleted", |house, _| fs::remove_dir_all(house.path()).unwrap()),
    ("epoch file deleted", |house, _| fs::remove_file(house.epoch()).unwrap()),
    ("unfinished snapshot left", |house, random| {
        let garbage: Vec<u8> = (0..random.random_range(0..5_000)).map(|_| random.random()).collect();
        fs::write(house.home().join("snap.FFFFFFFFFFFFFFFF.generating"), garbage).unwrap();
    }),
    ("replaced by an older copy", |house, _| {
        fs::remove_dir_all(house.path()).unwrap();
        copy(&house.directory.path().join("older"), &house.path());
    }),
];

impl House {
    fn epoch(&self) -> PathBuf {
        self.directory.path().join("index.epoch")
    }

    fn home(&self) -> PathBuf {
        let mut homes = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        homes.find(|path| path.is_dir()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    fn home_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.home()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file() && path.metadata().unwrap().len() > 0).collect();
        files.sort();
        files
    }
}

fn flip(path: &Path, random: &mut StdRng) {
    let mut bytes = fs::read(path).unwrap();
    // The end of the log may be unused room, in which a flipped bit harms nothing: aim at what is used.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    bytes[random.random_range(0..used)] ^= 1 << random.random_range(0..8);
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, random: &mut StdRng) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(random.random_range(0..file.metadata().unwrap().len())).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One case: an index with a past, closed or killed, harmed, and opened again.
fn survive(name: &str, harm: Harm, closed: bool, seed: u64) {
    let (house, mut random) = (House::new(), StdRng::seed_from_u64(seed));
    let index = house.open();
    house.fill(&index, 300);
    assert!(index.settle(LONG) && index.close(LONG), "{name}");
    copy(&house.path(), &house.directory.path().join("older"));
    let index = house.open();
    (300..600).flat_map(image).for_each(|change| house.change(&index, change));
    (0..100).for_each(|number| house.change(&index, Change::BlobRemoved { digest: digest(number) }));
    assert!(index.settle(LONG));
    if closed {
        assert!(index.close(LONG));
    } else {
        drop(index);
    }
    harm(&house, &mut random);
    let index = house.open_at_once();
    // Recorded while it opens or rebuilds.
    (600..650).flat_map(image).for_each(|change| house.change(&index, change));
    assert!(index.settle(LONG), "{name}, closed {closed}, seed {seed}: {:?}", index.state());
    let differences = index.verify().unwrap();
    assert!(differences.is_empty(), "{name}, closed {closed}, seed {seed}: {differences:#?}");
    assert_right(&index, &house.files);
    assert!(index.close(LONG));
    assert_right(&house.open(), &house.files);
}

fn survive_all(rounds: u64) {
    for seed in 0..rounds {
        for (number, (name, harm)) in HARMS.into_iter().enumerate() {
            survive(name, harm, (seed + number as u64).is_multiple_of(2), seed * 100 + number as u64);
        }
    }
}

#[test]
fn any_harm_ends_in_an_index_that_says_what_the_files_say() {
    survive_all(4);
}

#[test]
#[ignore = "takes minutes; the nightly run"]
fn much_harm_ends_in_an_index_that_says_what_the_files_say() {
    survive_all(40);
}

#[test]
fn an_older_copy_is_told_from_the_right_one_and_kept_for_a_look() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 10);
    assert!(index.settle(LONG) && index.close(LONG));
    copy(&house.path(), &house.directory.path().join("older"));
    assert!(house.open().close(LONG));
    fs::remove_dir_all(house.path()).unwrap();
    fs::rename(house.directory.path().join("older"), house.path()).unwrap();
    assert_right(&house.open(), &house.files);
    assert_eq!(house.rebuilds(), 1);
    // A second one takes the place of the first.
    fs::remove_file(house.epoch()).unwrap();
    assert_right(&house.open(), &house.files);
    assert_eq!(house.rebuilds(), 2);
    let entries = fs::read_dir(house.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(entries.filter(|name| name.to_string_lossy().contains(".bad-")).count(), 1);
}

#[test]
fn rows_that_went_missing_without_a_word_are_missed() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 10);
    assert!(index.settle(LONG) && index.close(LONG));
    {
        let rows = crate::storage::index::rows::Rows::open(&house.home(), 1 << 20).unwrap();
        rows.remove(&crate::storage::index::key::blob(&digest(3))).unwrap().unwrap();
    }
    assert_right(&house.open(), &house.files);
    assert_eq!(house.rebuilds(), 1);
}

#[test]
fn without_ordered_writes_another_boot_costs_a_rebuild() {
    for (writes, rebuilds) in [("ordered", 0), ("unordered", 1)] {
        let house = House::new();
        let index = house.open();
        house.fill(&index, 10);
        assert!(index.settle(LONG));
        drop(index);
        let text = fs::read_to_string(house.epoch()).unwrap();
        let changed = |line: &str| match line.split_once(' ') {
            Some(("boot", _)) => "boot another".to_owned(),
            Some(("writes", _)) => format!("writes {writes}"),
            _ => line.to_owned(),
        };
        let lines: Vec<String> = text.lines().map(changed).collect();
        fs::write(house.epoch(), lines.join("\n") + "\n").unwrap();
        assert_right(&house.open(), &house.files);
        assert_eq!(house.rebuilds(), rebuilds, "{writes}");
    }
}

#[test]
fn a_copy_of_a_running_index_is_compared_with_the_files() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 500);
    assert!(index.settle(LONG));
    // What a killed process leaves: no drop of sled's has run.
    let killed = House { files: Arc::clone(&house.files), ..House::new() };
    (500..520).flat_map(image).for_each(|change| house.change(&index, change));
    copy(&house.path(), &killed.path());
    fs::copy(house.epoch(), killed.epoch()).unwrap();
    drop(index);
    assert_right(&killed.open(), &house.files);
    let expected = i64::from(takes_sync_flag(&house));
    assert_eq!(killed.metrics.sync_mode.get(), expected, "the copy's files are made synchronous again");
}
