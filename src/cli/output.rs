//! Writing to standard output. Never fails because who reads has seen enough.

use std::io::{ErrorKind, Write};

use super::failure::Failure;

/// Writes `text` as it is.
///
/// # Errors
/// It cannot be written, and not because the reader has gone (`larder … | head`).
pub(super) fn write(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
