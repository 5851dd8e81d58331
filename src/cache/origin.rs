//! Where repositories come from: the upstream of each registry.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::CacheError;
use crate::oci::{Registry, Repository};
use crate::upstream::Upstream;

/// The upstreams by what clients call them. Clones share them.
#[derive(Clone)]
pub struct Origins {
    upstreams: Arc<HashMap<Registry, Upstream>>,
}

impl Origins {
    /// Collects upstreams under their names.
    pub fn new(upstreams: impl IntoIterator<Item = Upstream>) -> Origins {
        let upstreams = upstreams.into_iter().map(|upstream| (upstream.name().clone(), upstream)).collect();
        Origins { upstreams: Arc::new(upstreams) }
    }

    /// The upstream that `repository` comes from.
    ///
    /// # Errors
    /// Its registry is not mirrored here.
    pub fn of(&self, repository: &Repository) -> Result<&Upstream, CacheError> {
        self.upstreams.get(&repository.registry).ok_or_else(|| CacheError::NotMirrored(repository.registry.clone()))
    }
}
