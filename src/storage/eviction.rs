//! Taking cached content away. Never decides what goes: the cache does; and never touches what a
//! hosted repository holds, whatever it is asked to.
//!
//! The order is tags, links, blobs, so that a crash in between leaves an image that no tag reaches, or a blob that nobody
//! holds: both are found again as leftovers, and neither is served wrong. Nothing is synced: what a power cut brings back
//! is a name without content, which counts as absent.

use std::time::Duration;

use super::durable;
use super::error::StorageError;
use super::index::{Change, State};
use super::space::{footprint, length_of};
use super::vault::Vault;
use crate::oci::{Digest, Repository, Tag};

/// How long the index may take to catch up before it is asked who holds a blob; if it does not, the blob stays.
const CATCH_UP: Duration = Duration::from_secs(2);
/// The same while everybody is held off, for what came meanwhile.
const LAST_WORD: Duration = Duration::from_millis(200);
/// Blobs that are removed before others may go on.
const BATCH: usize = 16;

/// What is to go of one repository.
#[derive(Clone, Debug, Default)]
pub struct Condemned {
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its links, the manifest that reaches the others first.
    pub links: Vec<Digest>,
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Blobs.
    pub blobs: u64,
    /// The disk that they used, in bytes.
    pub bytes: u64,
}

/// A cached repository does not have this any more.
pub fn forget(vault: &Vault, repository: &Repository, condemned: &Condemned) -> Result<(), StorageError> {
    let _open = vault.while_open()?;
    let directory = vault.layout.repository(repository);
    for tag in &condemned.tags {
        durable::unlink(&directory.tag(tag))?;
        vault.index.record(Change::TagRemoved { repository: repository.clone().into(), tag: tag.clone() });
    }
    for digest in &condemned.links {
        durable::unlink(&directory.link(digest))?;
        durable::unlink(&directory.referrers(digest))?;
        vault.index.record(Change::Unlinked { repository: repository.clone().into(), digest: *digest });
    }
    // A link that was found before is no right any more.
    if !condemned.links.is_empty() {
        vault.held.let_go();
    }
    Ok(())
}

/// Removes those of `blobs` that nobody holds, and that `is_needed` does not claim at the last moment.
pub fn remove(vault: &Vault, blobs: &[Digest], is_needed: impl Fn(&Digest) -> bool) -> Result<Removed, StorageError> {
    let mut removed = Removed::default();
    for batch in blobs.chunks(BATCH) {
        vault.index.settle(CATCH_UP);
        let _alone = vault.alone()?;
        // Nobody records anything now, so what the index says after this is what the files say.
        if !vault.index.settle(LAST_WORD) || vault.index.state() != State::Ready {
            return Ok(removed);
        }
        for digest in batch {
            let is_held = !vault.index.repositories_of(digest, 1).is_empty()
                || !vault.index.hosts_of(digest, 1).is_empty()
                || is_needed(digest);
            if is_held {
                continue;
            }
            let path = vault.layout.blob(digest);
            let bytes = footprint(length_of(&path));
            vault.drop_blob(digest)?;
            removed.blobs += 1;
            removed.bytes += bytes;
        }
        // A file that is held open keeps its room. One that was opened meanwhile is not held any more, either.
        vault.held.let_go();
    }
    Ok(removed)
}

/// Removes what was left half-way in. The caller sees to it that nobody is about to go on with it.
pub fn remove_part(vault: &Vault, digest: &Digest) -> Result<(), StorageError> {
    let part = vault.layout.part(digest);
    durable::unlink(&part)?;
    durable::unlink(&part.with_extension("mark"))?;
    vault.space.taken_up(digest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;
    use crate::oci::{Digest, MediaType, Repository};
    use crate::storage::{Condemned, Limits, Link, Settings, Store, Verify};

    fn open(home: &std::path::Path) -> Store {
        let limits = Limits { max_size: 1 << 20, min_free: 0 };
        let settings = Settings { data_dir: home.join("data"), index_cache: 1 << 20, limits, verify: Verify::Never };
        Store::open(settings, Clock::system(), &prometheus::Registry::new()).unwrap()
    }

    fn put(store: &Store, repository: &Repository, content: &[u8]) -> Digest {
        let (digest, room) = (Digest::sha256(content), store.reserve(content.len() as u64).unwrap());
        store.put_manifest(repository, &digest, content, MediaType::OciManifest, room).unwrap();
        digest
    }

    #[test]
    fn what_a_push_is_about_to_link_is_not_taken_away_for_being_nobodys() {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path());
        let repository = Repository { registry: "docker.io".parse().unwrap(), name: "library/a".parse().unwrap() };
        let digest = put(&store, &repository, b"both");
        // It is about to be evicted, and is pushed at this moment.
        store.forget(&repository, &Condemned { tags: vec![], links: vec![digest] }).unwrap();
        let (hosted, name) = (store.hosted(), "golden/a".parse().unwrap());
        let edit = hosted.edit_with(&name, &digest, b"both").unwrap();
        std::thread::scope(|scope| {
            let removed = scope.spawn(|| store.remove(&[digest], |_| false).unwrap());
            edit.set_link(&digest, Link::Blob { size: 4 }).unwrap();
            drop(edit);
            assert_eq!(removed.join().unwrap().blobs, 0);
        });
        assert!(hosted.open(&name, &digest).unwrap().is_some());
    }

    #[test]
    fn what_is_pushed_while_it_is_fetched_is_not_counted_as_the_caches() {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path());
        let (digest, name) = (Digest::sha256(b"both"), "golden/a".parse().unwrap());
        let (mut ingest, room) = store.ingest(&digest).unwrap();
        ingest.append(b"both").unwrap();
        let hosted = store.hosted();
        let edit = hosted.edit_with(&name, &digest, b"both").unwrap();
        edit.set_link(&digest, Link::Blob { size: 4 }).unwrap();
        drop(edit);
        assert!(store.index().settle(std::time::Duration::from_secs(10)));
        store.commit(&digest, ingest, room).unwrap();
        assert_eq!(store.usage().total(), 0);
    }

    #[test]
    fn only_what_nobody_holds_goes_and_what_is_hosted_is_not_the_caches() {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path());
        let repository = Repository { registry: "docker.io".parse().unwrap(), name: "library/a".parse().unwrap() };
        let [ours, linked, loose] =
            [&b"ours"[..], b"linked", b"loose"].map(|content| put(&store, &repository, content));
        for digest in [ours, linked, loose] {
            store.forget(&repository, &Condemned { tags: vec![], links: vec![digest] }).unwrap();
        }
        assert_eq!(store.usage().total(), 3 * 4096);
        let (hosted, name) = (store.hosted(), "golden/a".parse().unwrap());
        hosted.edit(&name).unwrap().set_link(&ours, Link::Blob { size: 4 }).unwrap();
        store.add_link(&repository, &ours, Link::Blob { size: 4 }).unwrap();
        store.add_link(&repository, &linked, Link::Blob { size: 6 }).unwrap();
        assert_eq!(store.usage().total(), 2 * 4096, "what is hosted does not count");
        hosted.edit(&name).unwrap().remove_link(&ours).unwrap();
        assert_eq!(store.usage().total(), 3 * 4096, "and does again when nobody hosts it any more");
        hosted.edit(&name).unwrap().set_link(&ours, Link::Blob { size: 4 }).unwrap();

        store.forget(&repository, &Condemned { tags: vec![], links: vec![ours] }).unwrap();
        assert!(store.index().settle(std::time::Duration::from_secs(10)));
        let removed = store.remove(&[ours, linked, loose], |_| false).unwrap();
        assert_eq!((removed.blobs, removed.bytes), (1, 4096));
        assert!(store.blob(&ours).unwrap().is_some() && store.blob(&linked).unwrap().is_some());
        assert!(store.blob(&loose).unwrap().is_none());
        assert!(hosted.open(&name, &ours).unwrap().is_some());

        store.close();
        drop((store, hosted));
        assert_eq!(open(home.path()).usage().total(), 4096, "counted anew at start");
    }
}
