//! Writing a file so that it is there whole or not at all. Never changes who may read one that was there before.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts `content` in the place of the file at `path`, which keeps its owner, its group and its mode. One that was not
/// there gets `mode`, and whoever runs this as its owner.
///
/// # Errors
/// What the system says; the old file is as it was then.
pub(super) fn replace_file(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    // A link goes on pointing where it did.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory(&path);
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(content.as_bytes())?;
    let mut mode = mode;
    if let Ok(old) = fs::metadata(&path) {
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        mode = old.mode() & 0o777;
    }
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    File::open(directory)?.sync_all()
}

/// The directory that a file is in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
