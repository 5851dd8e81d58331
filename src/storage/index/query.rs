//! The questions that the index answers from its rows. Each costs as much as its answer is long, whatever the index holds.

use std::ops::Bound;

use crate::oci::{Digest, Repository, Tag};
use crate::storage::link::Link;

use super::fault::Fault;
use super::key::{self, Key, Kind};
use super::record::{BlobRecord, TagRecord, parse_link};
use super::rows::{Bytes, Rows};

pub(super) fn blob(rows: &Rows, digest: &Digest) -> Result<Option<BlobRecord>, Fault> {
    read(rows, &key::blob(digest), BlobRecord::parse)
}

pub(super) fn tag(rows: &Rows, repository: &Repository, tag: &Tag) -> Result<Option<TagRecord>, Fault> {
    read(rows, &key::tag(repository, tag), TagRecord::parse)
}

/// The repositories that hold something or have a tag.
pub(super) fn repositories(rows: &Rows, after: Option<&Repository>, limit: usize) -> Result<Vec<Repository>, Fault> {
    let mut found: Vec<Repository> = Vec::new();
    while found.len() < limit {
        let last = found.last().or(after);
        let (link, tag) = (next_repository(rows, Kind::Link, last)?, next_repository(rows, Kind::Tag, last)?);
        match link.iter().chain(&tag).min() {
            Some(next) => found.push(next.clone()),
            None => break,
        }
    }
    Ok(found)
}

pub(super) fn tags(rows: &Rows, repository: &Repository, after: Option<&Tag>, limit: usize) -> Result<Vec<Tag>, Fault> {
    let after = after.map(|tag| key::tag(repository, tag));
    page(rows, key::within(Kind::Tag, repository), after, limit, |key, _| match key {
        Key::Tag(_, tag) => Some(tag),
        _ => None,
    })
}

pub(super) fn repositories_of(rows: &Rows, digest: &Digest, limit: usize) -> Result<Vec<Repository>, Fault> {
    page(rows, key::holders(digest), None, limit, |key, _| match key {
        Key::Holder(_, repository) => Some(repository),
        _ => None,
    })
}

pub(super) fn links(
    rows: &Rows,
    repository: &Repository,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<(Digest, Link)>, Fault> {
    let after = after.map(|digest| key::link(repository, digest));
    page(rows, key::within(Kind::Link, repository), after, limit, |key, value| match key {
        Key::Link(_, digest) => Some((digest, parse_link(value)?)),
        _ => None,
    })
}

pub(super) fn blobs(rows: &Rows, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, BlobRecord)>, Fault> {
    page(rows, key::all(Kind::Blob), after.map(key::blob), limit, |key, value| match key {
        Key::Blob(digest) => Some((digest, BlobRecord::parse(value)?)),
        _ => None,
    })
}

fn read<T>(rows: &Rows, key: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Fault> {
    let Some(value) = rows.get(key)? else { return Ok(None) };
    parse(&value).map(Some).ok_or_else(|| Fault::unreadable(key))
}

/// The first repository after another that has a row of this kind: one step, however many rows each has.
fn next_repository(rows: &Rows, kind: Kind, after: Option<&Repository>) -> Result<Option<Repository>, Fault> {
    let all = key::all(kind);
    let from = after.map_or(all.clone(), |repository| key::past(key::within(kind, repository)));
    let Some(row) = rows.scan(Bound::Included(&from), &key::past(all)).next() else { return Ok(None) };
    let (key, _) = row?;
    match Key::parse(&key) {
        Some(Key::Link(repository, _) | Key::Tag(repository, _)) => Ok(Some(repository)),
        _ => Err(Fault::unreadable(&key)),
    }
}

/// The first `limit` rows that begin with `prefix` and come after the key `after`.
fn page<T>(
    rows: &Rows,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    limit: usize,
    pick: impl Fn(Key, &[u8]) -> Option<T>,
) -> Result<Vec<T>, Fault> {
    let from = after.as_deref().map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
    let take = |(key, value): (Bytes, Bytes)| {
        Key::parse(&key).and_then(|parts| pick(parts, &value)).ok_or_else(|| Fault::unreadable(&key))
    };
    rows.scan(from, &key::past(prefix.clone())).take(limit).map(|row| row.and_then(take)).collect()
}
