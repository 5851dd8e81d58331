//! The proof: an engine is asked for an image that nobody has, and the mirror whether that arrived.

use std::future::Future;
use std::time::Duration;

use super::certificates::Identity;
use super::facts::Probe;
use super::reach::{Told, told};
use crate::cli::mirror_url::MirrorUrl;

/// How long an engine may take until its request arrives. Docker waits 15 s for `/v2/`, and pulls one after the other.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often the mirror is asked meanwhile.
const EVERY: Duration = Duration::from_millis(200);

/// A name for one probe: 128 random bits in 32 digits.
pub(super) fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The image that is pulled. Larder reserves these names; of Docker Hub one is asked only if the mirror was passed by.
pub(super) fn image(nonce: &str) -> String {
    format!("docker.io/library/larder-probe-{nonce}")
}

/// Waits until the probe has arrived, or the pull is over without. The pull ends with this.
pub(super) async fn confirm(
    mirror: &MirrorUrl,
    identity: Option<&Identity>,
    nonce: &str,
    pull: impl Future<Output = String>,
) -> Probe {
    let mut pull = std::pin::pin!(pull);
    let mut words = None;
    loop {
        match told(mirror, identity, nonce).await {
            Ok(Told { arrived: true, agent, via_proxy, asked_via_proxy }) => {
                return Probe::Arrived { agent, via_proxy: via_proxy && !asked_via_proxy };
            }
            Ok(_) => {}
            Err(reason) => return Probe::Unknown(reason),
        }
        // The mirror was asked once more after the end.
        if let Some(words) = words {
            return Probe::Lost(words);
        }
        tokio::select! {
            last = pull.as_mut() => words = Some(last),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
