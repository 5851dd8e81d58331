//! The data directory of a server that does not run, for commands that work without one. Its lock keeps a server out.

use prometheus::Registry;

use super::wiring::store_settings;
use crate::clock::Clock;
use crate::config::Config;
use crate::storage::{OpenError, Store};

/// Opens it. Blocks; whoever has it closes it.
///
/// # Errors
/// A server runs there, or it cannot be used.
pub fn open_stopped(config: &Config) -> Result<Store, OpenError> {
    Store::open(store_settings(config), Clock::system(), &Registry::new())
}
