//! Whether something may be asked of an upstream for what is pinned: no client waits for it. Never asks.

use std::sync::Arc;

use crate::cache::origin::{Origin, Origins};
use crate::cache::pins::Pins;
use crate::oci::{Reference, Repository};
use crate::task;

/// Which repositories a client may be given from upstream, as the door decides it.
pub type IsMirrored = Arc<dyn Fn(&Repository) -> bool + Send + Sync>;

/// Decides, each time anew: what takes long may be overtaken by an outage, or by the operator.
pub struct Leave {
    /// Who may be asked now.
    pub origins: Origins,
    /// What is pinned.
    pub pins: Pins,
    /// Where clients may pull from.
    pub is_mirrored: IsMirrored,
}

impl Leave {
    /// Whether it is still pinned, comes from where clients may pull from, and that upstream has time and budget to spare.
    pub async fn is_given(&self, repository: &Repository, reference: &Reference) -> bool {
        if !(self.is_mirrored)(repository) || !self.origins.origin(repository).is_ok_and(Origin::has_time_for_us) {
            return false;
        }
        let (pins, repository, reference) = (self.pins.clone(), repository.clone(), reference.clone());
        // While pins change, they are held until the file is durable.
        task::blocking(move || pins.cover_reference(&repository, &reference)).await
    }
}
