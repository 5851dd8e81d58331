//! What the operator's page remembers over a restart: one small file, replaced as a whole. Knows no meaning of it, and nobody
//! misses it: damaged, it counts as absent.

use super::durable;
use super::error::StorageError;
use super::vault::Vault;

/// What was written last, if it is whole.
pub fn read(vault: &Vault) -> Result<Option<Vec<u8>>, StorageError> {
    durable::read(&vault.layout.activity())
}

/// Replaces it; durable when this returns.
pub fn write(vault: &Vault, content: &[u8]) -> Result<(), StorageError> {
    let _open = vault.while_open()?;
    vault.replace(vault.layout.activity(), content)
}
