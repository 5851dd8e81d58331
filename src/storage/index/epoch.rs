//! The file beside the index that says which index is the right one, and whether it was closed. Never touches sled.
//!
//! Every session has an id of its own, kept here and in the index. An index with another id, however sound, is not the
//! one that ran last: an older copy, or one that lost its end without noticing. The file lies beside the index directory
//! and not in it, so that replacing the directory cannot bring a matching file along. It is replaced atomically, and a
//! file that does not parse vouches for nothing.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;

use super::sync_mode::{SyncMode, sync_directory};
use super::table::Sum;

const HEADER: &str = "larder index epoch 1";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    /// The session's id.
    pub(super) id: String,
    /// The id of the session before it, which the index may still bear while this one begins.
    pub(super) previous: String,
    /// The directory of the database within the index directory.
    pub(super) home: String,
    /// The boot of the machine that the session ran in.
    pub(super) boot: String,
    /// Whether its writes were ordered.
    pub(super) sync_mode: SyncMode,
    /// The sum of all rows, once the session has ended and everything is on disk.
    pub(super) closed: Option<Sum>,
}

/// What an index can be taken for, given its epoch file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Closed, and everything on disk: right if its rows have this sum.
    Closed(Sum),
    /// Nothing wrong in it, but it may lack the last changes, or have too many.
    Unclosed,
    /// It may be anything.
    Nothing(&'static str),
}

impl Epoch {
    /// A session that begins now, after `previous`.
    pub(super) fn begin(home: String, previous: String, sync_mode: SyncMode) -> Epoch {
        Epoch { id: fresh_id(), previous, home, boot: this_boot(), sync_mode, closed: None }
    }

    /// How far the index that it vouches for can be trusted in this boot of the machine.
    pub(super) fn trust(&self) -> Trust {
        match self.closed {
            Some(sum) => Trust::Closed(sum),
            // The process was killed, but the kernel lived on and wrote everything.
            None if self.boot == this_boot() && self.boot != NO_BOOT => Trust::Unclosed,
            None if self.sync_mode == SyncMode::Synchronous => Trust::Unclosed,
            None => Trust::Nothing("the machine went down, and the file system did not keep writes in order"),
        }
    }

    /// Whether an index that bears `id` is the one meant.
    pub(super) fn covers(&self, id: &[u8]) -> bool {
        id == self.id.as_bytes() || (self.closed.is_none() && id == self.previous.as_bytes())
    }

    /// Reads the file. `None` if there is none, or nothing that can be relied on.
    pub(super) fn read(path: &Path) -> io::Result<Option<Epoch>> {
        match fs::read(path) {
            Ok(bytes) => Ok(str::from_utf8(&bytes).ok().and_then(Epoch::parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file, durably.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let (Some(directory), mut draft) = (path.parent(), path.to_owned()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        draft.as_mut_os_string().push(".new");
        let mut file = fs::File::create(&draft)?;
        file.write_all(self.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_directory(directory)
    }

    fn parse(text: &str) -> Option<Epoch> {
        let mut lines = text.strip_prefix(HEADER)?.strip_prefix('\n')?.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name);
        let epoch = Epoch {
            id: field("id ")?.to_owned(),
            previous: field("previous ")?.to_owned(),
            home: field("home ").filter(|home| is_home(home))?.to_owned(),
            boot: field("boot ")?.to_owned(),
            sync_mode: match field("writes ")? {
                "ordered" => SyncMode::Synchronous,
                "unordered" => SyncMode::Refused,
                _ => return None,
            },
            closed: match field("closed ")? {
                "no" => None,
                sum => Some(sum.parse().ok()?),
            },
        };
        lines.next().is_none().then_some(epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = if self.sync_mode == SyncMode::Synchronous { "ordered" } else { "unordered" };
        let closed = self.closed.map_or_else(|| "no".to_owned(), |sum| sum.to_string());
        writeln!(f, "{HEADER}\nid {}\nprevious {}\nhome {}", self.id, self.previous, self.home)?;
        writeln!(f, "boot {}\nwrites {writes}\nclosed {closed}", self.boot)
    }
}

/// A directory name that no other index has had, so that a handle which hangs in an old one cannot write into a new one.
pub(super) fn fresh_home() -> String {
    format!("sled-{}", fresh_id())
}

/// Whether a name is one of [`fresh_home`]'s, and so stays within its directory.
pub(super) fn is_home(name: &str) -> bool {
    name.strip_prefix("sled-").is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The standard library's hash keys are random; nothing here has to be hard to guess.
fn fresh_id() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one(0u8), RandomState::new().hash_one(1u8))
}

const NO_BOOT: &str = "unknown";

fn this_boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if id.trim().is_empty() { NO_BOOT.to_owned() } else { id.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(closed: Option<Sum>) -> Epoch {
        Epoch { closed, ..Epoch::begin(fresh_home(), fresh_id(), SyncMode::Refused) }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.epoch");
        assert_eq!(Epoch::read(&path).unwrap(), None);
        for epoch in [epoch(None), epoch(Some(Sum { rows: 7, checks: u64::MAX }))] {
            epoch.write(&path).unwrap();
            assert_eq!(Epoch::read(&path).unwrap().as_ref(), Some(&epoch));
            let whole = fs::read(&path).unwrap();
            for length in 0..whole.len() - 1 {
                fs::write(&path, &whole[..length]).unwrap();
                assert_ne!(Epoch::read(&path).unwrap().as_ref(), Some(&epoch), "{length}");
            }
        }
    }

    #[test]
    fn a_home_never_leaves_the_directory() {
        for name in ["sled-../x", "..", "sled-/etc", "db", "sled-a.b"] {
            assert!(!is_home(name), "{name}");
        }
        assert!(is_home(&fresh_home()));
    }

    #[test]
    fn only_ordered_writes_survive_another_boot() {
        let here = epoch(None);
        assert_eq!(here.trust(), Trust::Unclosed);
        let elsewhere = Epoch { boot: "another".to_owned(), ..here };
        assert!(matches!(elsewhere.trust(), Trust::Nothing(_)));
        assert_eq!(Epoch { sync_mode: SyncMode::Synchronous, ..elsewhere.clone() }.trust(), Trust::Unclosed);
        let sum = Sum::default();
        assert_eq!(Epoch { closed: Some(sum), ..elsewhere }.trust(), Trust::Closed(sum));
    }

    #[test]
    fn the_session_before_counts_only_until_this_one_is_closed() {
        let open = epoch(None);
        assert!(open.covers(open.id.as_bytes()) && open.covers(open.previous.as_bytes()) && !open.covers(b""));
        let closed = Epoch { closed: Some(Sum::default()), ..open };
        assert!(closed.covers(closed.id.as_bytes()) && !closed.covers(closed.previous.as_bytes()));
    }
}
