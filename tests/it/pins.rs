//! What is pinned stays: through `/api/pins`, `larder pin` and `larder unpin`, at once and over a restart.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::binary;
use crate::support::client::{Answer, Call, get};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;

const MIB: usize = 1 << 20;

async fn pull(larder: &Larder, repository: &str, image: &Image) {
    let manifest = larder.get(&format!("/v2/{repository}/manifests/latest")).await;
    assert_eq!((manifest.status, &manifest.body[..]), (200, &image.manifest[..]));
    for digest in image.blob_digests() {
        assert_eq!(larder.get(&format!("/v2/{repository}/blobs/{digest}")).await.status, 200);
    }
    larder.until_idle().await;
}

fn is_here(larder: &Larder, image: &Image) -> bool {
    image.blob_digests().into_iter().chain([image.digest()]).all(|digest| {
        let hex = digest.hex();
        larder.data().join("blobs/sha256").join(&hex[..2]).join(&hex).exists()
    })
}

async fn pin(larder: &Larder, pattern: &str) -> Answer {
    let wish = json!({"pattern": pattern}).to_string();
    Call::new("POST", "/api/pins")
        .header("Content-Type", "application/json")
        .body(wish.as_bytes())
        .send(larder.admin())
        .await
}

async fn unpin(larder: &Larder, pattern: &str) -> Answer {
    Call::new("DELETE", &format!("/api/pins?pattern={pattern}"))
        .header("X-Larder-Request", "1")
        .send(larder.admin())
        .await
}

async fn pins(larder: &Larder) -> Vec<String> {
    let pins = get(larder.admin(), "/api/pins").await.json();
    pins.as_array().unwrap().iter().map(|pin| pin["pattern"].as_str().unwrap().to_owned()).collect()
}

/// Pulls more than fits, each image a while after the one before.
async fn fill(hub: &Hub, larder: &Larder, seed: u64) {
    for n in 0..6 {
        let (name, image) = (format!("library/n{seed}-{n}"), Image::oci(seed + n, &[MIB, 100_000]));
        hub.push(&name, "latest", &image);
        larder.clock.advance(Duration::from_secs(120));
        pull(larder, &name, &image).await;
    }
}

#[tokio::test]
async fn what_is_pinned_survives_a_full_cache_and_a_restart_and_goes_when_it_is_unpinned() {
    let hub = Hub::plain().await;
    let mut larder = Larder::configured(&hub, "max_size = \"4MiB\"\nmin_free = \"0\"\n", "").await;
    let image = Image::oci(1, &[MIB]);
    hub.push("library/pinned", "latest", &image);
    pull(&larder, "library/pinned", &image).await;
    let pinned = pin(&larder, "pinned").await;
    assert_eq!((pinned.status, &pinned.json()["changed"]), (200, &json!(true)), "{}", pinned.text());
    assert_eq!(pin(&larder, "docker.io/library/pinned:latest").await.json()["changed"], false);
    fill(&hub, &larder, 100).await;
    assert!(is_here(&larder, &image));
    let told = get(larder.admin(), "/api/images?q=library/pinned").await.json();
    assert_eq!(told[0]["pinned"], true);

    larder.restart().await;
    assert_eq!(pins(&larder).await, ["docker.io/library/pinned:latest"]);
    fill(&hub, &larder, 200).await;
    assert!(is_here(&larder, &image), "although it is the oldest");
    let refused = Call::new("DELETE", "/api/images?image=pinned").header("X-Larder-Request", "1");
    let refused = refused.send(larder.admin()).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("larder unpin"), "{}", refused.text());

    assert_eq!(unpin(&larder, "pinned").await.status, 200);
    fill(&hub, &larder, 300).await;
    assert!(!is_here(&larder, &image) && pins(&larder).await.is_empty());
}

#[tokio::test]
async fn patterns_and_digests_can_be_pinned_and_nonsense_cannot() {
    let hub = Hub::plain().await;
    let open = "[[registry.repository]]\npattern = \"team/**\"\n";
    let upstream = format!("[registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"pull\"\n{open}");
    let larder = Larder::configured(&hub, "pin = [\"library/base:*\"]\n", &upstream).await;
    let image = Image::small(2);
    let by_digest = format!("alpine@{}", image.digest());
    for (written, kept) in [
        ("alpine:*", "docker.io/library/alpine:*".to_owned()),
        ("org/*", "org/*:*".to_owned()),
        ("org/**:v1", "org/**:v1".to_owned()),
        (by_digest.as_str(), format!("docker.io/library/{by_digest}")),
    ] {
        assert_eq!(pin(&larder, written).await.json()["pattern"], kept);
    }
    assert_eq!(pins(&larder).await.len(), 5, "the configuration's among them");
    hub.push("library/alpine", "3.20", &image);
    hub.push("org/app", "v2", &image);
    for name in ["library/alpine/manifests/3.20", "org/app/manifests/v2"] {
        assert_eq!(larder.get(&format!("/v2/{name}")).await.status, 200);
    }
    larder.until_idle().await;
    let told = get(larder.admin(), "/api/images").await.json();
    assert!(told.as_array().unwrap().iter().all(|image| image["pinned"] == true), "{told}");

    for (nonsense, status) in [("", 400), ("A b", 400), ("[", 400), ("[a", 400), ("team/app", 409)] {
        let answer = pin(&larder, nonsense).await;
        assert_eq!(answer.status, status, "{nonsense}: {}", answer.text());
    }
    assert_eq!(unpin(&larder, "other").await.status, 404);
    let configured = unpin(&larder, "library/base%3A%2A").await;
    assert_eq!(configured.status, 409, "{}", configured.text());
    let foreign =
        Call::new("POST", "/api/pins").header("Content-Type", "application/json").body(b"{\"pattern\":\"x\"}");
    assert_eq!(foreign.header("Origin", "http://evil.example").send(larder.admin()).await.status, 403);
    assert_eq!(pins(&larder).await.len(), 5);
}

#[tokio::test]
async fn a_damaged_file_of_pins_is_no_reason_not_to_start() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    pin(&larder, "alpine").await;
    larder.stop().await;
    std::fs::write(larder.data().join("pins"), "nonsense").unwrap();
    larder.start().await;
    assert!(pins(&larder).await.is_empty());
    assert_eq!(pin(&larder, "alpine").await.status, 200);
    larder.restart().await;
    assert_eq!(pins(&larder).await, ["docker.io/library/alpine:latest"]);
}

#[tokio::test]
async fn the_commands_speak_to_a_running_server() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let url = larder.admin().to_string();
    let run = |arguments: &[&str]| {
        let mut command = binary::larder();
        command.args(arguments).args(["--admin", &url]);
        binary::beside(command)
    };
    assert_eq!(run(&["pin"]).await.1, "nothing is pinned\n");
    let (code, said, err) = run(&["pin", "alpine:3.20"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "docker.io/library/alpine:3.20: pinned\n"), "{err}");
    assert_eq!(run(&["pin", "alpine:3.20"]).await.1, "docker.io/library/alpine:3.20: pinned already\n");
    let list: Value = serde_json::from_str(&run(&["pin", "--json"]).await.1).unwrap();
    assert_eq!(list, json!([{"pattern": "docker.io/library/alpine:3.20", "configured": false}]));
    assert_eq!(run(&["unpin", "alpine:3.20"]).await.1, "docker.io/library/alpine:3.20: not pinned any more\n");
    let (code, _, err) = run(&["unpin", "alpine:3.20"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("is not pinned by itself"), "{err}");
}
