//! What can go wrong between the index and its database, by what is to be done about it. Decides nothing itself.

use std::io;

/// Why the database cannot be used as it stands.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// No room left. Opening again heals the handle once there is some.
    Full(String),
    /// The disk refused something. Opening again may heal it.
    Disk(String),
    /// What was read is wrong, or sled gave up: build anew.
    Damaged(String),
}

impl Fault {
    /// The fault, for a log line.
    pub(super) fn reason(&self) -> &str {
        match self {
            Fault::Full(reason) | Fault::Disk(reason) | Fault::Damaged(reason) => reason,
        }
    }

    /// A row that cannot be taken apart.
    pub(super) fn unreadable(key: &[u8]) -> Fault {
        Fault::Damaged(format!("a row cannot be read, its key is {}", key.escape_ascii()))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full(error.to_string()),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Fault::Damaged(error.to_string()),
            _ => Fault::Disk(error.to_string()),
        }
    }
}
