//! What the configuration pins, as it is meant, and who keeps it.

use super::error::Error;
use crate::admin;
use crate::cache::{Cache, Pins};
use crate::config::Config;
use crate::http::Ours;
use crate::routing::Routes;
use crate::storage::Store;
use crate::task;

/// What is kept whatever happens. The configuration's names mean what they mean to `larder pin`; one that is nowhere here is
/// told in the log, and may come to mean something.
pub async fn open(config: &Config, store: &Store, routes: &Routes, ours: Option<&Ours>) -> Result<Pins, Error> {
    let meant = |pattern: String| {
        admin::meant(routes, ours, &pattern).unwrap_or_else(|error| {
            tracing::warn!(%error, "cache.pin: {pattern:?} is kept if it is here, and not fetched");
            pattern
        })
    };
    let configured = config.cache.pin.iter().map(ToString::to_string).map(meant).collect();
    let store = store.clone();
    task::blocking(move || Pins::open(store, configured)).await.map_err(Error::Pins)
}

/// Keeps them fresh and whole for as long as it is polled.
pub fn keep(cache: &Cache, routes: Routes, ours: Option<Ours>) -> impl Future<Output = ()> + Send + 'static {
    cache.keep_pinned(move |repository| admin::is_mirrored(&routes, ours.as_ref(), repository))
}
