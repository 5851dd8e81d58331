//! The OCI distribution specification (1.1.1, and main where it is stricter), one test for each thing that it says, over
//! HTTP against the real server.

mod access;
mod blobs;
mod chunks;
mod deletion;
mod discovery;
mod manifests;
mod mirrored;
mod odd;
mod referrers;

use super::support::hub::Hub;
use super::support::larder::Larder;
use super::support::pushing::Remote;

/// Anyone may do anything with any name.
const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]\ndelete = [\"*\"]";

const REPO: &str = "team/app";

struct Registry {
    larder: Larder,
    hub: Hub,
}

impl Registry {
    async fn open() -> Registry {
        Registry::with(OPEN).await
    }

    async fn with(rules: &str) -> Registry {
        let hub = Hub::plain().await;
        Registry { larder: Larder::hosting(&hub, rules).await, hub }
    }

    fn repo(&self, name: &str) -> Remote {
        Remote::new(self.larder.registry(), name)
    }
}
