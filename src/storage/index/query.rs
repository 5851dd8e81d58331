//! The questions that the index answers from its rows. Each costs as much as its answer is long, whatever the index holds.

use std::ops::Bound;

use crate::oci::{Digest, RepoName, Repository, Tag};
use crate::storage::home::Home;
use crate::storage::link::Link;

use super::fault::Fault;
use super::key::{self, Key, Kind};
use super::record::{BlobRecord, TagRecord, parse_link};
use super::rows::{Bytes, Rows};

pub(super) fn blob(rows: &Rows, digest: &Digest) -> Result<Option<BlobRecord>, Fault> {
    read(rows, &key::blob(digest), BlobRecord::parse)
}

pub(super) fn tag(rows: &Rows, repository: &Home, tag: &Tag) -> Result<Option<TagRecord>, Fault> {
    read(rows, &key::tag(repository, tag), TagRecord::parse)
}

/// The cached repositories that hold something or have a tag.
pub(super) fn repositories(rows: &Rows, after: Option<&Repository>, limit: usize) -> Result<Vec<Repository>, Fault> {
    let from = |kind: Kind| key::between_homes(key::all(kind));
    let after = after.map(|after| Home::Cached(after.clone()));
    let homes = homes(rows, from, |kind| key::past(key::all(kind)), after, limit)?;
    Ok(homes.into_iter().filter_map(cached).collect())
}

/// The hosted repositories that hold something or have a tag.
pub(super) fn hosted(rows: &Rows, after: Option<&RepoName>, limit: usize) -> Result<Vec<RepoName>, Fault> {
    let before = |kind: Kind| key::between_homes(key::all(kind));
    let after = after.map(|after| Home::Hosted(after.clone()));
    let homes = homes(rows, key::all, before, after, limit)?;
    Ok(homes.into_iter().filter_map(hosted_name).collect())
}

/// The repositories between two keys of each kind, after one of them.
fn homes(
    rows: &Rows,
    from: impl Fn(Kind) -> Vec<u8>,
    before: impl Fn(Kind) -> Vec<u8>,
    after: Option<Home>,
    limit: usize,
) -> Result<Vec<Home>, Fault> {
    let mut found: Vec<Home> = Vec::new();
    while found.len() < limit {
        let last = found.last().or(after.as_ref());
        let next = |kind: Kind| {
            let from = last.map_or_else(|| from(kind), |last| key::past(key::within(kind, last)));
            next_repository(rows, &from, &before(kind))
        };
        let (link, tag) = (next(Kind::Link)?, next(Kind::Tag)?);
        match link.iter().chain(&tag).min() {
            Some(next) => found.push(next.clone()),
            None => break,
        }
    }
    Ok(found)
}

fn cached(home: Home) -> Option<Repository> {
    match home {
        Home::Cached(repository) => Some(repository),
        Home::Hosted(_) => None,
    }
}

fn hosted_name(home: Home) -> Option<RepoName> {
    match home {
        Home::Hosted(name) => Some(name),
        Home::Cached(_) => None,
    }
}

pub(super) fn tags(rows: &Rows, repository: &Home, after: Option<&Tag>, limit: usize) -> Result<Vec<Tag>, Fault> {
    let after = after.map(|tag| key::tag(repository, tag));
    page(rows, key::within(Kind::Tag, repository), after, limit, |key, _| match key {
        Key::Tag(_, tag) => Some(tag),
        _ => None,
    })
}

/// Of the cached ones.
pub(super) fn repositories_of(rows: &Rows, digest: &Digest, limit: usize) -> Result<Vec<Repository>, Fault> {
    let after = key::between_homes(key::holders(digest));
    page(rows, key::holders(digest), Some(after), limit, |key, _| match key {
        Key::Holder(_, home) => cached(home),
        _ => None,
    })
}

/// Of the hosted ones.
pub(super) fn hosts_of(rows: &Rows, digest: &Digest, limit: usize) -> Result<Vec<RepoName>, Fault> {
    page(rows, key::hosts(digest), None, limit, |key, _| match key {
        Key::Holder(_, home) => hosted_name(home),
        _ => None,
    })
}

pub(super) fn links(
    rows: &Rows,
    repository: &Home,
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

/// The repository of the first row between two keys: one step, however many rows each has.
fn next_repository(rows: &Rows, from: &[u8], before: &[u8]) -> Result<Option<Home>, Fault> {
    let Some(row) = rows.scan(Bound::Included(from), before).next() else { return Ok(None) };
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
