//! A disk that is full, files that cannot be read, a directory that cannot be made: the index says so, and heals.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::storage::index::fault::Fault;

/// A small file system in memory, which takes no FS_SYNC_FL either.
struct SmallDisk {
    directory: Option<TempDir>,
}

impl SmallDisk {
    /// None where mounting is not allowed.
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        mount.is_ok_and(|output| output.status.success()).then_some(SmallDisk { directory: Some(directory) })
    }

    fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().unwrap();
    }
}

#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
fn skipped(reason: &str) {
    eprintln!("SKIP: {reason}");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("in vain: {what}");
}

#[test]
fn a_full_disk_takes_the_index_away_and_room_brings_it_back() {
    let Some(disk) = SmallDisk::mount(24) else {
        return skipped("mounting needs root");
    };
    let house = House::within(tempfile::tempdir_in(disk.path()).unwrap());
    let index = house.open();
    house.fill(&index, 500);
    assert_right(&index, &house.files);
    assert_eq!(house.metrics.sync_mode.get(), 0, "tmpfs takes no FS_SYNC_FL");
    let filler = disk.path().join("filler");
    let mut filling = fs::File::create(&filler).unwrap();
    while io::copy(&mut io::repeat(7).take(1 << 16), &mut filling).is_ok() {}
    let mut number = 500;
    wait_until("the index notices", || {
        (number..number + 500).flat_map(image).for_each(|change| house.change(&index, change));
        number += 500;
        index.settle(LONG);
        matches!(index.state(), State::Degraded { .. })
    });
    assert!(index.blob(&digest(1)).is_none_or(|blob| blob.size == 1), "what it still says is right");
    drop(filling);
    fs::remove_file(filler).unwrap();
    house.clock.advance(Duration::from_secs(120));
    index.record(stored(1, 1));
    wait_until("the index comes back", || index.settle(LONG) && index.state() == State::Ready);
    assert_right(&index, &house.files);
    assert_eq!(house.rebuilds(), 0, "a full disk is no reason to throw an index away");
    assert!(index.close(LONG));
    assert_right(&house.open(), &house.files);
    drop(house);
}

#[test]
fn what_a_reader_meets_is_healed_as_it_demands() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 50);
    assert!(index.settle(LONG));
    let reason = || "a test says so".to_owned();
    for (fault, rebuilds) in [(Fault::Disk(reason()), 0), (Fault::Full(reason()), 0), (Fault::Damaged(reason()), 1)] {
        index.handle.shared.queue.report(fault);
        assert_right(&index, &house.files);
        assert_eq!(house.rebuilds(), rebuilds);
    }
    // The fourth is one too many.
    index.handle.shared.queue.report(Fault::Damaged(reason()));
    assert!(index.settle(LONG));
    assert!(matches!(index.state(), State::Degraded { .. }), "{:?}", index.state());
    (50..60).flat_map(image).for_each(|change| house.change(&index, change));
    assert_eq!(index.blob(&digest(1)), None);
    house.clock.advance(Duration::from_secs(120));
    index.record(stored(1, 1));
    wait_until("it is opened again", || index.state() == State::Ready);
    assert_right(&index, &house.files);
}

#[test]
fn a_panic_of_the_files_stays_inside() {
    struct Rotten;
    impl Truth for Rotten {
        fn walk(&self, _: &mut dyn FnMut(Change) -> ControlFlow<()>) -> io::Result<()> {
            std::panic::resume_unwind(Box::new("a test says so"))
        }
        fn is_empty(&self) -> io::Result<bool> {
            Ok(true)
        }
    }
    let house = House::new();
    let index = Index::open(house.settings(), Arc::new(Rotten), house.clock.clone(), house.metrics.clone());
    assert!(index.settle(LONG));
    assert!(matches!(index.state(), State::Degraded { .. }), "{:?}", index.state());
    index.record(stored(1, 1));
    assert!(index.settle(LONG));
    assert_eq!(index.totals().blobs, 1, "what is recorded is known all the same");
}

#[test]
fn files_that_cannot_be_read_remove_no_rows_and_are_walked_again_later() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 50);
    assert!(index.settle(LONG));
    *house.files.unreadable.lock().unwrap() = true;
    index.compare();
    assert!(index.settle(LONG));
    assert!(matches!(index.state(), State::Degraded { .. }), "{:?}", index.state());
    assert_eq!(index.totals().blobs, 100);
    *house.files.unreadable.lock().unwrap() = false;
    house.clock.advance(Duration::from_secs(120));
    index.record(stored(1, 1));
    wait_until("it is walked again", || index.state() == State::Ready);
    assert_right(&index, &house.files);
}

#[test]
fn an_index_not_known_to_be_complete_is_not_closed_as_if_it_were() {
    let house = House::new();
    *house.files.unreadable.lock().unwrap() = true;
    let index = house.open();
    assert!(!index.close(LONG));
    *house.files.unreadable.lock().unwrap() = false;
    (0..10).flat_map(image).for_each(|change| house.files.change(&change));
    assert_right(&house.open(), &house.files);
}

#[test]
fn where_no_index_can_be_made_there_is_none() {
    let house = House::new();
    fs::write(house.directory.path().join("file"), "").unwrap();
    let settings = Settings::new(house.directory.path().join("file/index"));
    let index = Index::open(settings, Arc::<Files>::clone(&house.files), house.clock.clone(), house.metrics.clone());
    assert!(index.settle(LONG));
    assert!(matches!(index.state(), State::Degraded { .. }), "{:?}", index.state());
    index.record(stored(1, 1));
    assert!(index.settle(LONG));
    assert_eq!((index.blob(&digest(1)), index.repositories(None, 9)), (None, Vec::new()));
    assert!(index.verify().is_err());
    assert!(!index.close(LONG));
}

#[test]
fn a_clone_of_a_closed_index_has_no_answers_and_hangs_nobody() {
    let house = House::new();
    let index = house.open();
    house.fill(&index, 1);
    let clone = index.clone();
    assert!(index.close(LONG));
    assert_eq!(clone.state(), State::Closed);
    clone.record(stored(9, 9));
    assert!(clone.settle(LONG));
    assert_eq!(clone.blob(&digest(1)), None);
    assert!(clone.close(LONG), "closing twice is closing");
    assert_right(&house.open(), &house.files);
}
