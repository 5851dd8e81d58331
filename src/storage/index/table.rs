//! Rows as a table: what the rules of `apply.rs` need of one, and the sum by which one is known again. Knows no database.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::fault::Fault;
use super::key::Kind;
use super::record::BlobRecord;

/// Somewhere that rows can be kept.
pub(super) trait Table {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Fault>;
    fn remove(&mut self, key: &[u8]) -> Result<(), Fault>;
}

/// Rows in memory: what an index is compared with.
pub(super) type Sketch = BTreeMap<Vec<u8>, Vec<u8>>;

impl Table for Sketch {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Fault> {
        self.insert(key, value);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Fault> {
        BTreeMap::remove(self, key);
        Ok(())
    }
}

/// What all rows add up to, in whatever order. A database that lost rows without noticing has another sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// How many there are.
    pub(super) rows: u64,
    /// The sum of their checksums.
    pub(super) checks: u64,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rows, self.checks)
    }
}

impl FromStr for Sum {
    type Err = ();

    fn from_str(text: &str) -> Result<Sum, ()> {
        let (rows, checks) = text.split_once(' ').ok_or(())?;
        Ok(Sum { rows: rows.parse().map_err(|_| ())?, checks: checks.parse().map_err(|_| ())? })
    }
}

/// Running totals over a table, kept with every row that comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Of all rows.
    pub(super) sum: Sum,
    /// How many blobs.
    pub(super) blobs: u64,
    /// Their length together.
    pub(super) bytes: u64,
}

impl Tally {
    /// A row came.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sum.rows = self.sum.rows.wrapping_add(1);
        self.sum.checks = self.sum.checks.wrapping_add(check(key, value));
        if let Some(size) = blob_size(key, value) {
            self.blobs = self.blobs.wrapping_add(1);
            self.bytes = self.bytes.wrapping_add(size);
        }
    }

    /// A row went.
    pub(super) fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.sum.rows = self.sum.rows.wrapping_sub(1);
        self.sum.checks = self.sum.checks.wrapping_sub(check(key, value));
        if let Some(size) = blob_size(key, value) {
            self.blobs = self.blobs.wrapping_sub(1);
            self.bytes = self.bytes.wrapping_sub(size);
        }
    }
}

fn check(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    u64::from(hasher.finalize())
}

fn blob_size(key: &[u8], value: &[u8]) -> Option<u64> {
    (*key.first()? == Kind::Blob as u8).then_some(BlobRecord::parse(value)?.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_does_not_care_about_order_and_comes_back_to_nothing() {
        let record = |size| BlobRecord { size, last_used: 1 }.encode();
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.add(b"b1", &record(5));
        one.add(b"t", b"x");
        other.add(b"t", b"x");
        other.add(b"b1", &record(5));
        assert_eq!(one, other);
        assert_eq!((one.blobs, one.bytes, one.sum.rows), (1, 5, 2));
        one.subtract(b"t", b"x");
        one.subtract(b"b1", &record(5));
        assert_eq!(one, Tally::default());
    }
}
