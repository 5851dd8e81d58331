//! Whether the index says what the files say: the oracle of every test that hurts it. Never repairs anything.
//!
//! Sizes, kinds, links and what tags point at have to agree. When something was last used or confirmed is the index's own
//! knowledge, some of which may be lost, and is not compared.

use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};

use super::apply::fill_in;
use super::change::Truth;
use super::fault::Fault;
use super::key::{self, Key};
use super::record::{BlobRecord, TagRecord, parse_link};
use super::rows::Rows;
use super::state::Totals;
use super::table::{Sketch, Tally};

/// Something on which the index and the files do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is about.
    pub subject: String,
    /// What the files say, if they say anything.
    pub files: Option<String>,
    /// What the index says, if it says anything.
    pub index: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [files, index] = [&self.files, &self.index].map(|said| said.as_deref().unwrap_or("nothing"));
        write!(f, "{}: the files say {files}, the index says {index}", self.subject)
    }
}

/// Compares everything. Holds all rows in memory, and is right only while nothing changes.
pub(super) fn verify(rows: &Rows, totals: Totals, truth: &dyn Truth) -> io::Result<Vec<Difference>> {
    let (mut expected, mut tally) = (Sketch::new(), Tally::default());
    truth.walk(&mut |change| match fill_in(&mut expected, &change) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    })?;
    let mut differences = Vec::new();
    for row in rows.scan(Bound::Included(&key::FIRST), &key::LAST) {
        let (key, value) = row.map_err(failed)?;
        tally.add(&key, &value);
        let (files, index) = (expected.remove(key.as_ref()), Some(value.to_vec()));
        differences.extend(difference(&key, files, index));
    }
    for (key, value) in expected {
        differences.extend(difference(&key, Some(value), None));
    }
    let counted = Totals { blobs: tally.blobs, bytes: tally.bytes };
    if totals != counted {
        let (files, index) = (Some(format!("{counted:?}")), Some(format!("{totals:?}")));
        differences.push(Difference { subject: "totals, the rows counted".to_owned(), files, index });
    }
    Ok(differences)
}

fn failed(fault: Fault) -> io::Error {
    io::Error::other(fault.reason().to_owned())
}

fn difference(key: &[u8], files: Option<Vec<u8>>, index: Option<Vec<u8>>) -> Option<Difference> {
    if files == index {
        return None;
    }
    let say = |value: Option<Vec<u8>>| value.map(|value| meaning(key, &value));
    let (files, index) = (say(files), say(index));
    (files != index).then(|| Difference { subject: subject(key), files, index })
}

fn subject(key: &[u8]) -> String {
    match Key::parse(key) {
        Some(Key::Blob(digest)) => format!("blob {digest}"),
        Some(Key::Holder(digest, repository)) => format!("holder {repository} of {digest}"),
        Some(Key::Link(repository, digest)) => format!("link {repository}@{digest}"),
        Some(Key::Tag(repository, tag)) => format!("tag {repository}:{tag}"),
        None => format!("row {}", key.escape_ascii()),
    }
}

fn meaning(key: &[u8], value: &[u8]) -> String {
    let known = match Key::parse(key) {
        Some(Key::Blob(_)) => BlobRecord::parse(value).map(|blob| format!("{} bytes", blob.size)),
        Some(Key::Holder(..)) => Some("so".to_owned()),
        Some(Key::Link(..)) => parse_link(value).map(|link| format!("{link:?}")),
        Some(Key::Tag(..)) => TagRecord::parse(value).map(|tag| tag.digest.to_string()),
        None => None,
    };
    known.unwrap_or_else(|| value.escape_ascii().to_string())
}
