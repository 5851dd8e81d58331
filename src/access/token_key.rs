//! The file that holds the key for tokens, so that they outlive a restart. Blocks.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use tempfile::NamedTempFile;

use super::error::SetupError;
use super::token::TokenKey;

impl TokenKey {
    /// The key in the file at `path`, which is made if it is not there: readable by its owner only, and durable.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds something else.
    pub fn open(path: &Path) -> Result<TokenKey, SetupError> {
        let failed = |source| SetupError::Key { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(bytes) => {
                let bytes: [u8; TokenKey::LENGTH] = bytes.try_into().map_err(|_| failed(damaged()))?;
                let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
                if mode & 0o077 != 0 {
                    tracing::warn!(path = ?path, "others can read the key for tokens: chmod 600");
                }
                Ok(TokenKey::from_bytes(&bytes))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut bytes = [0; TokenKey::LENGTH];
                SystemRandom::new().fill(&mut bytes).map_err(|_| SetupError::Random)?;
                write(path, &bytes).map_err(failed)?;
                Ok(TokenKey::from_bytes(&bytes))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn damaged() -> io::Error {
    let reason = "it is not a key; delete it to have another one made, and everybody will have to log in again";
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// A temporary file is its owner's only (0600) from the start.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.key");
        let made = TokenKey::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = TokenKey::open(&path).unwrap();
        assert_eq!(made.fingerprint(["a", "b"]), again.fingerprint(["a", "b"]));
        let other = TokenKey::open(&directory.path().join("other.key")).unwrap();
        assert_ne!(made.fingerprint(["a", "b"]), other.fingerprint(["a", "b"]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn what_is_no_key_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token.key");
        for bytes in [&b""[..], &[7; 31], &[7; 33]] {
            fs::write(&path, bytes).unwrap();
            let error = TokenKey::open(&path).unwrap_err().to_string();
            assert!(error.contains("token.key") && error.contains("delete it"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert!(matches!(TokenKey::open(&directory.path().join("no/token.key")), Err(SetupError::Key { .. })));
    }
}
