//! What a change does to the rows: the rules, on any table. Never waits, and never looks at a file.
//!
//! A change that was recorded states what is so now, and replaces. A change from a walk over the files states what a file
//! looks like, and only fills in: when something was last used or confirmed is known better by the index.

use crate::oci::Digest;
use crate::storage::home::Home;
use crate::storage::link::Link;

use super::change::Change;
use super::fault::Fault;
use super::key;
use super::record::{BlobRecord, TagRecord, encode_holder, encode_link};
use super::table::Table;

/// Recency is not kept finer than this, in seconds: a hit must not cost a write.
pub(super) const RECENCY_GRAIN: u64 = 60;

/// The row whose existence a change decides; none for one that only dates a row.
pub(super) fn decides(change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::BlobStored { digest, .. } | Change::BlobRemoved { digest } => Some(key::blob(digest)),
        Change::Linked { repository, digest, .. } | Change::Unlinked { repository, digest } => {
            Some(key::link(repository, digest))
        }
        Change::TagSet { repository, tag, .. } | Change::TagRemoved { repository, tag } => {
            Some(key::tag(repository, tag))
        }
        Change::TagChecked { .. } | Change::Used { .. } => None,
    }
}

/// Applies a change that was recorded.
pub(super) fn apply(table: &mut impl Table, change: &Change) -> Result<(), Fault> {
    match change {
        Change::BlobStored { digest, size, at } => {
            table.put(key::blob(digest), BlobRecord { size: *size, last_used: *at }.encode())
        }
        Change::BlobRemoved { digest } => table.remove(&key::blob(digest)),
        Change::Linked { repository, digest, link } => {
            hold(table, key::holder(digest, repository))?;
            put_link(table, repository, digest, link)
        }
        Change::Unlinked { repository, digest } => {
            table.remove(&key::link(repository, digest))?;
            table.remove(&key::holder(digest, repository))
        }
        Change::TagSet { repository, tag, digest, at } => {
            table.put(key::tag(repository, tag), TagRecord { digest: *digest, checked: *at }.encode())
        }
        Change::TagChecked { repository, tag, at } => checked(table, key::tag(repository, tag), |_| Some(*at)),
        Change::TagRemoved { repository, tag } => table.remove(&key::tag(repository, tag)),
        Change::Used { digest, at } => {
            used(table, digest, |last| (at / RECENCY_GRAIN != last / RECENCY_GRAIN).then_some(*at))
        }
    }
}

/// Fills in what a walk over the files found.
pub(super) fn fill_in(table: &mut impl Table, change: &Change) -> Result<(), Fault> {
    match change {
        Change::BlobStored { digest, size, .. } => match blob(table, digest)? {
            Some(known) if known.size == *size => Ok(()),
            _ => apply(table, change),
        },
        // Nothing is dated in it, and writing what is there already costs a database nothing.
        Change::Linked { .. } => apply(table, change),
        Change::TagSet { repository, tag, digest, .. } => {
            match table.get(&key::tag(repository, tag))?.as_deref().and_then(TagRecord::parse) {
                Some(known) if known.digest == *digest => Ok(()),
                _ => apply(table, change),
            }
        }
        Change::TagChecked { repository, tag, at } => {
            checked(table, key::tag(repository, tag), |last| (*at > last).then_some(*at))
        }
        Change::Used { digest, at } => used(table, digest, |last| (*at > last).then_some(*at)),
        // What is not there is not walked over.
        Change::BlobRemoved { .. } | Change::Unlinked { .. } | Change::TagRemoved { .. } => Ok(()),
    }
}

/// Writes the row that says what a repository holds; who holds it is another.
pub(super) fn put_link(table: &mut impl Table, repository: &Home, digest: &Digest, link: &Link) -> Result<(), Fault> {
    table.put(key::link(repository, digest), encode_link(link))
}

/// Writes that other one, whose key is `holder`.
pub(super) fn hold(table: &mut impl Table, holder: Vec<u8>) -> Result<(), Fault> {
    table.put(holder, encode_holder())
}

fn blob(table: &impl Table, digest: &Digest) -> Result<Option<BlobRecord>, Fault> {
    Ok(table.get(&key::blob(digest))?.as_deref().and_then(BlobRecord::parse))
}

fn used(table: &mut impl Table, digest: &Digest, new: impl Fn(u64) -> Option<u64>) -> Result<(), Fault> {
    let Some(record) = blob(table, digest)? else { return Ok(()) };
    match new(record.last_used) {
        Some(last_used) => table.put(key::blob(digest), BlobRecord { last_used, ..record }.encode()),
        None => Ok(()),
    }
}

fn checked(table: &mut impl Table, key: Vec<u8>, new: impl Fn(u64) -> Option<u64>) -> Result<(), Fault> {
    let Some(record) = table.get(&key)?.as_deref().and_then(TagRecord::parse) else { return Ok(()) };
    match new(record.checked) {
        Some(checked) => table.put(key, TagRecord { checked, ..record }.encode()),
        None => Ok(()),
    }
}
