//! The open database together with its running totals. One thread writes; nothing else may, or the totals drift.

use std::sync::Arc;

use super::fault::Fault;
use super::rows::Rows;
use super::table::{Table, Tally};

/// Writes rows and keeps count.
pub(super) struct Ledger {
    rows: Arc<Rows>,
    tally: Tally,
    unflushed: usize,
}

impl Ledger {
    /// `tally` is what the rows add up to now.
    pub(super) fn new(rows: Arc<Rows>, tally: Tally) -> Ledger {
        Ledger { rows, tally, unflushed: 0 }
    }

    /// The rows, for reading.
    pub(super) fn rows(&self) -> &Arc<Rows> {
        &self.rows
    }

    /// Gives the rows back.
    pub(super) fn into_rows(self) -> Arc<Rows> {
        self.rows
    }

    /// What the rows add up to.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// How many writes came after the last flush.
    pub(super) fn unflushed(&self) -> usize {
        self.unflushed
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        self.rows.flush()?;
        self.unflushed = 0;
        Ok(())
    }
}

impl Table for Ledger {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.rows.get(key)?.map(|value| value.to_vec()))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Fault> {
        if let Some(before) = self.rows.put(&key, &value)? {
            self.tally.subtract(&key, &before);
        }
        self.tally.add(&key, &value);
        self.unflushed += 1;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Fault> {
        if let Some(before) = self.rows.remove(key)? {
            self.tally.subtract(key, &before);
            self.unflushed += 1;
        }
        Ok(())
    }
}
