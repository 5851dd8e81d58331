//! What the operator sees: metrics, liveness, readiness; and the mirror over TLS.

use std::fs;

use larder::clock::Clock;
use larder::config::Config;

use crate::support::client::{Call, Connection, get, head};
use crate::support::hub::{Hub, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

/// The names of the contract that exist by now. Dashboards and alerts use them.
const METRICS: [&str; 29] = [
    "larder_requests_total",
    "larder_request_duration_seconds",
    "larder_first_byte_seconds",
    "larder_response_bytes_total",
    "larder_upstream_requests_total",
    "larder_upstream_bytes_total",
    "larder_upstream_request_duration_seconds",
    "larder_upstream_up",
    "larder_upstream_ratelimit_limit",
    "larder_upstream_ratelimit_remaining",
    "larder_fills_in_flight",
    "larder_fill_waiters",
    "larder_fills_total",
    "larder_cache_bytes",
    "larder_cache_blobs",
    "larder_released_bytes",
    "larder_digest_mismatches_total",
    "larder_incomplete_refused_total",
    "larder_fallback_tags_total",
    "larder_tags_gone_total",
    "larder_quarantined_blobs",
    "larder_connections",
    "larder_build_info",
    "larder_index_rebuilds_total",
    "larder_index_sync_mode",
    "larder_index_state",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

#[tokio::test]
async fn every_metric_of_the_contract_is_there_with_its_help() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    larder.get("/v2/library/alpha/manifests/latest").await;
    for digest in image.blob_digests() {
        larder.get(&format!("/v2/library/alpha/blobs/{digest}")).await;
    }
    hub.fault(Target::Cdn, crate::support::hub::Fault::WrongBytes);
    let wrong = hub.add_blob("library/alpha", "wrong");
    larder.get(&format!("/v2/library/alpha/blobs/{wrong}")).await;

    let page = get(larder.admin(), "/metrics").await;
    assert_eq!(page.status, 200);
    let text = page.text();
    for name in METRICS {
        assert!(text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    for word in ["alpha", "latest", "127.0.0.1:"] {
        assert!(!text.contains(word), "a label holds {word}: its values are without bound");
    }
    assert_eq!(larder.metric("larder_fills_total", "result=\"complete\"").await, 3.0);
    assert_eq!(larder.metric("larder_fills_total", "result=\"mismatch\"").await, 1.0);
    assert_eq!(larder.metric("larder_upstream_ratelimit_limit", "").await, 100_000.0);
    assert_eq!(larder.metric("larder_upstream_up", "part=\"registry\"").await, 1.0);
}

#[tokio::test]
async fn alive_and_ready_do_not_depend_on_upstream() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    hub.stop().await;
    let (alive, ready) = (get(larder.admin(), "/livez").await, get(larder.admin(), "/readyz").await);
    assert_eq!((alive.status, ready.status), (200, 200));
    assert!(ready.text().starts_with("ready\n"), "{}", ready.text());
    assert_eq!(head(larder.admin(), "/livez").await.status, 200);
    assert_eq!(get(larder.admin(), "/v2/").await.status, 404, "no client is served here");
    let post = Call::new("POST", "/metrics").header("X-Larder-Request", "1");
    assert_eq!(post.send(larder.admin()).await.status, 405);
    assert_eq!(get(larder.mirror(), "/metrics").await.status, 404, "and no operator there");
}

#[tokio::test]
async fn the_mirror_speaks_tls_when_it_has_a_certificate() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let image = Image::small(2);
    hub.push("library/alpha", "latest", &image);
    let own = rcgen::generate_simple_self_signed(["mirror.localhost".to_owned()]).unwrap();
    let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    fs::write(&cert, own.cert.pem()).unwrap();
    fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let file = home.path().join("larder.toml");
    let text = format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {cert:?}, key = {key:?} }}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        home.path().join("data"),
        hub.registry_url()
    );
    fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), std::iter::empty()).unwrap();
    let server = larder::app::Server::start(&config, Clock::system()).await.unwrap();
    let mut connection = Connection::open_tls(server.mirror, "mirror.localhost", &own.cert.pem()).await.unwrap();
    let answer = connection.call(&Call::get("/v2/library/alpha/manifests/latest")).await;
    assert_eq!(answer.body, image.manifest);
    assert_eq!(answer.header("x-request-id").map(str::len), Some(16));
    let page = get(server.admin, "/metrics").await.text();
    let ends = page
        .lines()
        .find_map(|line| line.strip_prefix("larder_certificate_expiry_timestamp_seconds{listener=\"mirror\"} "));
    // What rcgen makes ends in the year 4096.
    let ends: u64 = ends.expect("when the certificate ends").parse().unwrap();
    assert!((67_000_000_000..67_200_000_000).contains(&ends), "{ends}");
    // A client that speaks plain HTTP to it is told so.
    assert_eq!(get(server.mirror, "/v2/").await.status, 400);
}

#[tokio::test]
async fn a_tls_greeting_on_the_plain_port_is_answered_in_http() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let mut hello = vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    hello.resize(205, 7);
    let answer = crate::support::client::send_raw(larder.mirror(), &hello).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}
