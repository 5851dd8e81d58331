//! What the operator pinned while the server ran: one small file, replaced as a whole. Knows no pattern's meaning.

use super::durable;
use super::error::StorageError;
use super::vault::Vault;

/// The patterns, in the order in which they came.
pub fn read(vault: &Vault) -> Result<Vec<String>, StorageError> {
    let path = vault.layout.pins();
    let Some(bytes) = durable::read_ours(&path)? else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes).map_err(|_| StorageError::Damaged { path })
}

/// Replaces them; durable when this returns.
pub fn write(vault: &Vault, patterns: &[String]) -> Result<(), StorageError> {
    let _open = vault.while_open()?;
    vault.replace(vault.layout.pins(), &serde_json::to_vec(patterns).unwrap_or_default())
}
