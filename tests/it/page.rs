//! The operator's web page as it is served, and what it asks for. A browser drives it in `clients/browser`.

use serde_json::json;

use crate::support::client::{Call, get};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::Larder;

const FILES: [(&str, &str); 3] = [
    ("/", "text/html; charset=utf-8"),
    ("/page.css", "text/css; charset=utf-8"),
    ("/page.js", "text/javascript; charset=utf-8"),
];

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
    let status = get(larder.admin(), "/api/status").await.json();
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
