//! Other people's programs, run for what they print. Each ends when nobody waits for it any more.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

/// How often it is looked whether one has ended.
const EVERY: Duration = Duration::from_millis(50);
/// Most of what one prints that is read, in bytes.
const MAX_OUTPUT: u64 = 4 << 20;

/// What one printed.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) succeeded: bool,
    pub(super) out: String,
    pub(super) err: String,
}

impl Output {
    /// The last thing it said, which is why it failed if it did.
    pub(super) fn last_words(&self) -> String {
        let said = |text: &str| text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned);
        said(&self.err).or_else(|| said(&self.out)).unwrap_or_default()
    }
}

/// Where a program is.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    // Root's PATH is not everybody's, and daemons live in sbin.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs one for `patience` at most.
///
/// # Errors
/// It cannot be started, or does not end; in one line.
pub(super) async fn run(mut command: Command, patience: Duration) -> Result<Output, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut files = [tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?];
    let [out, err] = [files[0].try_clone().map_err(failed)?, files[1].try_clone().map_err(failed)?];
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(failed)?;
    let mut child = Owned(child);
    let ended = async {
        loop {
            match child.0.try_wait() {
                Ok(None) => tokio::time::sleep(EVERY).await,
                Ok(Some(status)) => return Ok(status.success()),
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let succeeded = timeout(patience, ended).await.map_err(|_elapsed| "it does not end".to_owned())??;
    let [out, err] = files.each_mut().map(read);
    Ok(Output { succeeded, out, err })
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read back is as if it had not been said.
    let _ = file.rewind().and_then(|()| file.take(MAX_OUTPUT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Killed and reaped when it is dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
