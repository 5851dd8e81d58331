//! What an operator is told: `/readyz`, `/api/status`, `/api/budget`, and `larder status`, which asks them.

use serde_json::{Value, json};

use crate::stale::until_out_of_order;
use crate::support::binary::{beside, larder};
use crate::support::client::{Call, get};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;

const REPO: &str = "library/alpha";

fn manifest(reference: impl ToString) -> String {
    format!("/v2/{REPO}/manifests/{}", reference.to_string())
}

async fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = larder();
    command.args(arguments);
    beside(command).await
}

#[tokio::test]
async fn an_outage_shows_and_does_not_make_the_server_unready() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let ready = get(larder.admin(), "/readyz").await;
    assert!(
        ready.text().contains("\ndocker.io registry: up\ndocker.io token: up\ndocker.io cdn: up\n"),
        "{}",
        ready.text()
    );
    hub.stop().await;
    until_out_of_order(&larder, &manifest("latest")).await;
    let ready = get(larder.admin(), "/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text().starts_with("ready\n"), "{}", ready.text());
    assert!(ready.text().contains("\ndocker.io registry: out of order since 2"), "{}", ready.text());

    let status = get(larder.admin(), "/api/status").await;
    assert_eq!((status.status, status.header("content-type")), (200, Some("application/json")));
    let part = &status.json()["upstreams"][0]["registry"]["parts"][0];
    assert_eq!((part["part"].clone(), part["state"].clone()), (json!("registry"), json!("down")));

    let url = format!("http://{}", larder.admin());
    let (code, out, _) = command(&["status", "--admin", &url]).await;
    assert_eq!(code, Some(0), "the server is well: {out}");
    assert!(out.contains("registry: out of order since ") && out.contains(" UTC ("), "{out}");
}

#[tokio::test]
async fn the_status_counts_what_is_here_and_how_it_was_served() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    for _ in 0..3 {
        assert_eq!(larder.get(&manifest("latest")).await.status, 200);
    }
    for digest in image.blob_digests() {
        assert!(larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await.complete);
    }
    let status = loop {
        let status = get(larder.admin(), "/api/status").await.json();
        // The index is told of what is on disk in its own time.
        if status["cache"]["blobs"] == 4 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    let bytes = image.manifest.len() + image.blobs.iter().map(|blob| blob.len()).sum::<usize>();
    assert_eq!((status["cache"]["bytes"].clone(), status["requests"]["hit"].as_u64() >= Some(2)), (json!(bytes), true));
    assert_eq!((status["requests"]["miss"].as_u64() >= Some(1), status["fills_in_flight"].clone()), (true, json!(0)));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));

    let url = format!("http://{}", larder.admin());
    let (code, out, _) = command(&["status", "--json", "--admin", &url]).await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["status"]["cache"]), (Some(0), &status["cache"]));
    let post = Call::new("POST", "/api/status").header("X-Larder-Request", "1");
    assert_eq!(post.send(larder.admin()).await.status, 405);
}

#[tokio::test]
async fn the_budget_names_who_spent_it_on_what() {
    let hub = Hub::plain().await;
    let index = Image::index_with_attestations(&[Image::small(1)]);
    let (child, attestation) = (&index.children[0], &index.children[1]);
    hub.push(REPO, "latest", &index);
    let larder = Larder::mirroring(&hub).await;
    assert_eq!(larder.get(&manifest("latest")).await.status, 200);
    assert_eq!(larder.get(&manifest(child.digest())).await.status, 200);
    let spent = loop {
        let budget = get(larder.admin(), "/api/budget").await.json();
        if budget["spent"].as_array().unwrap().len() == 3 {
            break budget["spent"].clone();
        }
        tokio::task::yield_now().await;
    };
    let of = |image: &Image| {
        let image = format!("{REPO}@{}", image.digest());
        let spent = spent.as_array().unwrap().iter().find(|spent| spent["image"] == image.as_str());
        spent.unwrap_or_else(|| panic!("{image} is not in {spent:?}"))["on_behalf_of"].clone()
    };
    assert_eq!((of(&index), of(child), of(attestation)), (json!("127.0.0.1"), json!("127.0.0.1"), json!("completion")));
    assert!(!get(larder.admin(), "/metrics").await.text().contains("127.0.0.1"), "and no metric holds a client");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_a_question_that_is_wrong() {
    // A port that nobody listens on any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (code, _, error) = command(&["status", "--admin", &url]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains(&url) && error.lines().count() == 1, "{error}");
    for wrong in [&["status", "--admin", "ftp://x"][..], &["status", "--config", "/does/not/exist"]] {
        assert_eq!(command(wrong).await.0, Some(2), "{wrong:?}");
    }
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let (code, _, error) = command(&["status", "--admin", &larder.mirror().to_string()]).await;
    assert_eq!(code, Some(1), "the mirror is no admin address");
    assert!(error.contains("404"), "{error}");
}
