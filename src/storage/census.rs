//! Counting at start what the cached half uses: every blob that no hosted repository holds. Never changes anything but the
//! account.
//!
//! Files are the truth, so each is looked at; on a thread of its own, because of a million that takes longer than a start
//! may. Whoever wants room waits for it, and who wants something that is here does not.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::durable;
use super::error::StorageError;
use super::layout::{self, Layout};
use super::print::Print;
use super::repositories;
use super::space::{Counting, Space, length_of};
use crate::oci::Digest;

/// How long a start waits for it: where there are few files, nobody ever sees the server without its account.
const PROMPT: Duration = Duration::from_millis(500);
/// How long after a failure it is begun anew.
const AGAIN: Duration = Duration::from_secs(10);

/// What was left half-way in, without the room that was set apart for the rest of it: a process that is killed does not
/// give that back.
pub fn count_parts(layout: &Layout, space: &Space) -> Result<(), StorageError> {
    for (name, path) in durable::entries(&layout.ingest())? {
        let Some(digest) = name.strip_suffix(".part").and_then(layout::parse_file_name) else { continue };
        let length = length_of(&path);
        // One that cannot be cut is counted all the same.
        let _ = cut(&path, length);
        space.left(&digest, length);
    }
    Ok(())
}

/// Some file systems do nothing about a length that does not change.
fn cut(path: &Path, length: u64) -> io::Result<()> {
    let part = File::options().write(true).open(path)?;
    part.set_len(length + 1)?;
    part.set_len(length)
}

/// Begins to count the blobs.
pub fn begin(layout: Layout, counting: Counting) {
    let (done, finished) = sync_channel(1);
    let work = move || {
        // Counting twice what was counted before does no harm.
        while let Err(error) = count(&layout, &counting)
            && counting.is_wanted()
        {
            tracing::error!(%error, "what is here cannot be counted, and nothing more is kept until it is");
            std::thread::sleep(AGAIN);
        }
        counting.done();
        // Nobody waits for it any more: fine.
        let _ = done.send(());
    };
    match std::thread::Builder::new().name("larder-count".to_owned()).spawn(work) {
        Ok(_thread) => drop(finished.recv_timeout(PROMPT)),
        Err(error) => tracing::error!(%error, "no thread to count what is here: nothing is kept until the next start"),
    }
}

fn count(layout: &Layout, counting: &Counting) -> Result<(), StorageError> {
    // As many as there are links of hosted repositories, while it lasts.
    let mut hosted = HashSet::new();
    for (_, directory) in repositories::hosted(layout)? {
        let digests = durable::entries(&directory.links())?;
        hosted.extend(digests.iter().filter_map(|(name, _)| layout::parse_file_name(name)).map(|it| Print::of(&it)));
    }
    for directory in layout.blob_directories() {
        if !counting.is_wanted() {
            return Ok(());
        }
        let algorithm = directory.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        for (name, path) in durable::entries(&directory)? {
            let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
            if hosted.contains(&Print::of(&digest)) {
                continue;
            }
            // One that went meanwhile is nothing to count.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            counting.found(&digest, metadata.len());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::clock::Clock;
    use crate::storage::Limits;

    #[test]
    fn what_is_half_way_in_takes_no_more_room_than_is_counted() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path().join("data"));
        fs::create_dir_all(layout.ingest()).unwrap();
        let part = layout.part(&Digest::sha256(b"half"));
        fs::write(&part, "half").unwrap();
        let file = File::options().write(true).open(&part).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        let limits = Limits { max_size: 1 << 30, min_free: 0 };
        let (space, _counting) = Space::new(limits, home.path().to_owned(), Clock::system());
        count_parts(&layout, &space).unwrap();
        let metadata = fs::metadata(&part).unwrap();
        assert_eq!((metadata.len(), fs::read(&part).unwrap().as_slice()), (4, &b"half"[..]));
        assert!(metadata.blocks() * 512 <= space.usage().parts, "{} blocks", metadata.blocks());
    }
}
