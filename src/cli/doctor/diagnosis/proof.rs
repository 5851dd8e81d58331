//! What the probe shows, and the proxy that may have been in its way.

use crate::cli::doctor::facts::{Engine, MirrorFacts, Probe, Reach};
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::no_proxy::proxy_for;

/// Whether the engine asks the mirror through a proxy. `where_set` is where its variables are written.
pub(super) fn proxy(about: &'static str, engine: &Engine, mirror: &MirrorFacts, where_set: &str) -> Option<Finding> {
    let host = mirror.url.host();
    let passed_on = matches!(engine.probe, Probe::Arrived { via_proxy: true, .. });
    let Some(variables) = &engine.proxies else {
        let found = Finding::warn(about, "its proxy variables cannot be read").because("they are root's to see");
        return Some(found.then("run this as root"));
    };
    match proxy_for(&mirror.url, variables) {
        Some((name, proxy)) => Some(
            Finding::fail(about, format!("asks the mirror through the proxy {}", without_account(proxy)))
                .because(format!("{name} is set, and NO_PROXY does not contain {host}"))
                .then(format!("add {host} to NO_PROXY {where_set}")),
        ),
        None if passed_on => Some(
            Finding::fail(about, "its requests reach the mirror through a proxy")
                .because("the mirror saw a proxy's header, and not on ours")
                .then(format!("look for a proxy that this engine is told of, and exempt {host}")),
        ),
        None => None,
    }
}

/// What came of the pull.
pub(super) fn probe(about: &'static str, engine: &Engine, mirror: &MirrorFacts) -> Option<Finding> {
    Some(match &engine.probe {
        Probe::Pointless => return None,
        Probe::Arrived { agent, .. } => {
            Finding::ok(about, format!("pulls through the mirror: its probe arrived there, sent by \"{agent}\""))
        }
        Probe::Lost(words) => Finding::fail(about, "does not pull through the mirror")
            .because(format!("it was asked for a probe, and nothing arrived; it said \"{words}\""))
            .then(format!("see the findings above; what it tried is in its log (journalctl -u {about})")),
        // Told of the mirror already.
        Probe::NotTried(why) if mirror.reach != Reach::Larder => {
            Finding::warn(about, "no probe pull was tried").because(*why)
        }
        Probe::NotTried(why) => Finding::fail(about, "no probe pull could be tried").because(*why),
        Probe::Unknown(reason) => Finding::fail(about, "the mirror did not say whether the probe arrived")
            .because(reason.as_str())
            .then("run this again"),
    })
}

/// A proxy's address may have a password in it.
fn without_account(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}
