//! The probe that `larder doctor` has an engine pull, and what the mirror tells of it.
//!
//! Whether doctor names what is wrong with real engines is tried in `clients/doctor.rs`.

use crate::support::client::Call;
use crate::support::hub::{Hub, Seen};
use crate::support::larder::Larder;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_probe_is_confirmed_to_who_knows_it_and_never_asked_of_upstream() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let asked = format!("/v2/_larder/probe/{NONCE}");
    let before = larder.get(&asked).await;
    assert_eq!((before.status, before.json()["arrived"].as_bool()), (200, Some(false)));

    for name in ["library/larder-probe-", "larder-probe-"] {
        for ns in ["", "?ns=docker.io"] {
            let pull = Call::get(&format!("/v2/{name}{NONCE}/manifests/latest{ns}")).header("user-agent", "engine/1");
            let answer = pull.send(larder.mirror()).await;
            assert_eq!((answer.status, &answer.json()["errors"][0]["code"]), (404, &"MANIFEST_UNKNOWN".into()));
        }
    }
    let told = larder.get(&asked).await.json();
    assert_eq!(
        told,
        serde_json::json!({
            "arrived": true, "agent": "engine/1", "via_proxy": false, "asked_via_proxy": false
        })
    );
    let through = Call::head(&format!("/v2/library/larder-probe-{NONCE}/manifests/latest")).header("via", "1.1 proxy");
    assert_eq!(through.send(larder.mirror()).await.status, 404);
    let told = Call::get(&asked).header("x-forwarded-for", "192.0.2.1").send(larder.mirror()).await.json();
    assert_eq!((&told["via_proxy"], &told["asked_via_proxy"]), (&true.into(), &true.into()));

    let other = larder.get(&asked.replace("0123", "3210")).await.json();
    assert_eq!(other["arrived"], false, "another probe's arrival is told");
    for path in ["/v2/_larder/probe/", "/v2/_larder/probe/x", "/v2/_larder/", "/v2/_other/probe/x"] {
        assert_eq!(larder.get(path).await.status, 404, "{path}");
    }
    assert_eq!(hub.count(|_: &Seen| true), 0, "upstream was asked for a probe");
}

#[tokio::test]
async fn the_registry_tells_nothing_of_probes() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, "anonymous = \"pull\"").await;
    let answer = Call::get(&format!("/v2/_larder/probe/{NONCE}")).send(larder.registry()).await;
    assert_eq!(answer.status, 404);
}
