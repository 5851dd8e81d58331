//! The operator's web page as it is served, and what it asks for. A browser drives it in `clients/browser`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Call, get};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::Larder;

const FILES: [(&str, &str); 3] = [
    ("/", "text/html; charset=utf-8"),
    ("/page.css", "text/css; charset=utf-8"),
    ("/page.js", "text/javascript; charset=utf-8"),
];

/// A request is counted when its answer has left, which its client may know before.
async fn told(larder: &Larder, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let said = get(larder.admin(), path).await.json();
            if enough(&said) {
                return said;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_elapsed| panic!("{path} does not say it"))
}

#[tokio::test]
async fn the_page_is_whole_in_itself_and_says_so_to_browsers() {
    let larder = Larder::mirroring(&Hub::plain().await).await;
    for (path, kind) in FILES {
        let file = get(larder.admin(), path).await;
        assert_eq!((file.status, file.header("content-type")), (200, Some(kind)), "{path}");
        let policy = file.header("content-security-policy").unwrap();
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"] {
            assert!(policy.split("; ").any(|said| said == rule), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let text = file.text();
        for outside in ["http://", "https://", "//cdn", "@import", "innerHTML", "<style", "style=", " onclick"] {
            assert!(!text.contains(outside), "{path} has {outside}");
        }
        let post = Call::new("POST", path).header("X-Larder-Request", "1");
        assert_eq!(post.send(larder.admin()).await.status, 405);
        assert_eq!(get(larder.mirror(), path).await.status, 404, "no client is shown it");
    }
}

#[tokio::test]
async fn the_status_has_what_the_page_shows() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    larder.get("/v2/library/alpha/manifests/latest").await;
    let status = told(&larder, "/api/status", |status| status["requests"]["miss"] == 1).await;
    assert_eq!(status["mirror"], format!("http://{}", larder.mirror()));
    assert_eq!(status["cache"]["max_bytes"], json!(100_u64 << 30));
    assert!(status["cache"]["used_bytes"].as_u64() >= Some(image.manifest.len() as u64), "{status}");
    assert!(status["upstream_bytes"].as_u64() >= Some(image.manifest.len() as u64), "{status}");
    assert_eq!(status["response_bytes"]["miss"], json!(image.manifest.len()));
}

#[tokio::test]
async fn a_fill_is_shown_with_how_far_it_is_and_who_reads_it() {
    let hub = Hub::plain().await;
    let digest = hub.add_blob("library/alpha", noise(5, 2_000_000));
    let larder = Larder::mirroring(&hub).await;
    let half = hub.fault(Target::Cdn, Fault::Stall(1_000_000));
    let mut readings = Vec::new();
    for _ in 0..3 {
        let blob = format!("/v2/library/alpha/blobs/{digest}");
        readings.push(Call::get(&blob).open(larder.mirror()).await);
    }
    for reading in &mut readings {
        reading.read(800_000).await;
    }
    let status = get(larder.admin(), "/api/status").await.json();
    let fill = &status["fills"][0];
    assert_eq!((&fill["digest"], &fill["repository"]), (&json!(digest.to_string()), &json!("docker.io/library/alpha")));
    assert_eq!((&fill["size"], &fill["readers"]), (&json!(2_000_000), &json!(3)));
    assert!((800_000..=1_000_000).contains(&fill["bytes"].as_u64().unwrap()), "{fill}");
    half.release();
    for reading in readings {
        assert!(reading.rest().await.complete);
    }
    assert_eq!(get(larder.admin(), "/api/status").await.json()["fills"], json!([]));
}

#[tokio::test]
async fn what_was_asked_for_and_what_failed_is_told_to_operators_alone() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    for _ in 0..3 {
        assert_eq!(larder.get("/v2/library/alpha/manifests/latest").await.status, 200);
    }
    assert_eq!(larder.get(&format!("/v2/library/alpha/manifests/{}", image.digest())).await.status, 200);
    assert_eq!(larder.get("/v2/library/none/manifests/latest").await.status, 404);
    hub.stop().await;
    assert_eq!(larder.get("/v2/library/gone/manifests/latest").await.status, 503);
    let absent = format!("/v2/library/alpha/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(larder.get(&absent).await.status, 404);

    let lately = told(&larder, "/api/activity", |lately| {
        lately["days"][0]["requests"] == 4 && lately["images"][0]["count"] == 3 && lately["errors"][1].is_object()
    })
    .await;
    let pulled = json!([{"name": "docker.io/library/alpha:latest", "count": 3, "over": 0}]);
    assert_eq!((&lately["images"], &lately["clients"][0]["name"]), (&pulled, &json!("127.0.0.1")));
    assert_eq!(lately["clients"][0]["count"], 3);
    let errors: Vec<_> = lately["errors"].as_array().unwrap().iter().collect();
    let told: Vec<_> = errors.iter().map(|error| (error["status"].as_u64(), error["path"].as_str())).collect();
    assert_eq!(
        told,
        [(Some(404), Some(absent.as_str())), (Some(503), Some("/v2/library/gone/manifests/latest"))],
        "not what is nowhere: {errors:?}"
    );
    assert!(errors.iter().all(|error| !error["reason"].as_str().unwrap().is_empty()), "{errors:?}");
    let today = &lately["days"][0];
    assert_eq!((&today["requests"], &today["hits"]), (&json!(4), &json!(3)), "{lately}");
    assert!(today["cached_bytes"].as_u64() >= Some(3 * image.manifest.len() as u64), "{today}");
    assert_eq!(get(larder.mirror(), "/api/activity").await.status, 404);
}

#[tokio::test]
async fn what_was_asked_for_is_remembered_over_a_restart_and_over_the_death_of_the_process() {
    let hub = Hub::plain().await;
    hub.push("library/alpha", "latest", &Image::small(1));
    let mut larder = Larder::mirroring(&hub).await;
    let pulls = |n: u64| move |lately: &Value| lately["images"][0]["count"] == n;
    larder.get("/v2/library/alpha/manifests/latest").await;
    let before = told(&larder, "/api/activity", pulls(1)).await;
    larder.restart().await;
    assert_eq!(get(larder.admin(), "/api/activity").await.json(), before);

    // Nobody is asked to stop: what is a minute old is in the file.
    let file = larder.data().join("activity");
    let old = std::fs::read(&file).unwrap();
    larder.get("/v2/library/alpha/manifests/latest").await;
    told(&larder, "/api/activity", pulls(2)).await;
    larder.clock.advance(Duration::from_secs(61));
    let written = async {
        while std::fs::read(&file).unwrap() == old {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.expect("a minute's file");
    let kept = std::fs::read(&file).unwrap();
    larder.get("/v2/library/alpha/manifests/latest").await;
    told(&larder, "/api/activity", pulls(3)).await;
    larder.stop().await;
    std::fs::write(&file, kept).unwrap();
    larder.start().await;
    assert!(pulls(2)(&get(larder.admin(), "/api/activity").await.json()));

    larder.stop().await;
    std::fs::write(&file, "damaged").unwrap();
    larder.start().await;
    assert_eq!(get(larder.admin(), "/api/activity").await.json()["days"], json!([]), "it begins anew");
}
