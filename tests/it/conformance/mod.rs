//! The OCI distribution specification (1.1.1, and main where it is stricter), one test for each thing that it says, over
//! HTTP against the real server.
//!
//! | what it speaks of | where |
//! | --- | --- |
//! | names, tags, digests: their grammar | `oci` (properties), `discovery`, `manifests`, `odd` |
//! | determining support, error codes, methods | `discovery`, `manifests`, `access` |
//! | pulling manifests: by tag, by digest, HEAD, bytes as pushed | `manifests`, `odd` |
//! | pulling blobs: HEAD, one range, several, If-None-Match | `blobs` |
//! | pushing blobs: POST and PUT, one POST, streamed, mounted, every algorithm, wrong digests | `blobs` |
//! | pushing in chunks: order, status, resuming, cancelling, any algorithm and size | `chunks` |
//! | pushing manifests: types, references, size, `?tag=`, `OCI-Tag`, `OCI-Subject`, missing subjects | `manifests`, `referrers` |
//! | what the official suite pushes: no bytes, `{}`, no layers, nested, sha512, inline data, unknown fields | `odd` |
//! | tags and catalogue: order, `n`, `n=0`, `last`, `Link`, pages of our own | `discovery` |
//! | referrers: filter, fallback tags, pages, deletion | `referrers` |
//! | deletion: tags, manifests, blobs, at once | `deletion` |
//! | proxying: `ns`, `OCI-Namespace`, what is ours on the mirror's address | `mirrored`, and `pull`, `several_upstreams` beside |

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
