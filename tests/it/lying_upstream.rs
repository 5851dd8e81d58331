//! An upstream that lies: no client gets a complete body of it, nothing of it is kept, and the next request fetches anew.

use larder::oci::{Algorithm, Digest};

use crate::support::client::Answer;
use crate::support::hub::{Fault, Hub, Plan, Role, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound, files};

const REPO: &str = "library/alpha";
const TAG: &str = "/v2/library/alpha/manifests/latest";

/// How large the blob is: shown only whole, or shown while it arrives.
const SIZES: [usize; 2] = [10_000, 400_000];

fn assert_nothing_kept(larder: &Larder, digest: &Digest, case: &str) {
    assert_sound(&larder.data());
    let kept = files(&larder.data().join("blobs"));
    let hex = digest.hex();
    assert!(!kept.iter().any(|(path, _)| path.ends_with(&hex)), "{case}: it was kept");
}

fn assert_nothing_on_its_way(larder: &Larder, case: &str) {
    assert_eq!(files(&larder.data().join("ingest")).len(), 0, "{case}: something is left on its way in");
}

fn is_refusal(answer: &Answer) -> bool {
    answer.status >= 400 || !answer.complete
}

/// Faults in a blob's bytes that no reading can mend.
fn blob_lies() -> Vec<(&'static str, Target, Plan)> {
    let content_range = hyper::header::CONTENT_RANGE;
    vec![
        ("wrong bytes", Target::Cdn, Fault::WrongBytes.into()),
        ("half the body, said to be all", Target::Cdn, Fault::Truncated.into()),
        ("a byte too many", Target::Cdn, Fault::LongBody(1).into()),
        ("many bytes too many", Target::Cdn, Fault::LongBody(100_000).into()),
        ("gzip unasked", Target::Cdn, Fault::GzipEncoding.into()),
        (
            "an encoding that is not one",
            Target::Cdn,
            Fault::Header(hyper::header::CONTENT_ENCODING, Some("br".into())).into(),
        ),
        ("a login page instead of the redirect", Target::Blob, Plan::from(Fault::captive_portal()).past_auth()),
        ("a login page at the CDN", Target::Cdn, Fault::captive_portal().into()),
        ("an empty body", Target::Cdn, Fault::status(200, "application/octet-stream", "").into()),
        ("other content", Target::Cdn, Fault::status(200, "application/octet-stream", noise(99, 10_000)).into()),
        ("always cut short", Target::Cdn, Fault::ShortBody(5_000).into()),
        ("always reset", Target::Cdn, Fault::ResetAfter(5_000).into()),
        ("the CDN denies", Target::Cdn, Fault::cdn_denies().into()),
        (
            "206 unasked",
            Target::Cdn,
            Fault::Instead {
                status: 206,
                headers: vec![(content_range, "bytes 0-9/10".into())],
                body: bytes::Bytes::from_static(b"0123456789"),
            }
            .into(),
        ),
        ("no bytes with 204", Target::Cdn, Fault::status(204, "application/octet-stream", "").into()),
    ]
}

#[tokio::test]
async fn a_blob_that_is_not_its_digest_is_never_complete_and_never_kept() {
    for size in SIZES {
        let hub = Hub::plain().await;
        let larder = Larder::mirroring(&hub).await;
        for (n, (case, target, plan)) in blob_lies().into_iter().enumerate() {
            let content = noise(n as u64, size);
            let digest = hub.add_blob(REPO, content.clone());
            let path = format!("/v2/{REPO}/blobs/{digest}");
            let rule = hub.fault(target, plan);
            let answer = larder.get(&path).await;
            assert!(is_refusal(&answer), "{case} at {size}: {} with {} bytes", answer.status, answer.body.len());
            // A blob that is shown only whole can always be refused honestly; this one claims to be longer.
            let shown_whole = size < 64 << 10 && case != "many bytes too many";
            assert!(!shown_whole || answer.status == 404, "{case} at {size}: {}", answer.status);
            assert_nothing_kept(&larder, &digest, case);
            rule.lift();
            larder.until_up().await;
            let answer = larder.get(&path).await;
            assert!(answer.complete && answer.body == content, "{case} at {size}: not fetched anew");
            assert_nothing_on_its_way(&larder, case);
        }
        assert!(larder.metric("larder_digest_mismatches_total", "where=\"upstream\"").await >= 4.0);
        assert_eq!(larder.metric("larder_fills_in_flight", "").await, 0.0);
    }
}

#[tokio::test]
async fn an_endless_body_ends() {
    let hub = Hub::plain().await;
    let image = Image::oci(20, &[100_000]);
    hub.push(REPO, "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    larder.head(TAG).await;
    hub.fault(Target::Cdn, Fault::Endless);
    // The manifest has said how long it is, upstream does not: what comes behind the blob's end is not read.
    let (digest, content) = image.layer(0);
    let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await;
    assert!(answer.complete && answer.body == content);
    hub.until_open(Role::Cdn, 0).await;
    assert_nothing_on_its_way(&larder, "endless");
}

#[tokio::test]
async fn a_blob_of_unannounced_length_is_streamed_and_verified() {
    let hub = Hub::plain().await;
    let content = noise(21, 500_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Larder::mirroring(&hub).await;
    let rule = hub.fault(Target::Cdn, Fault::NoContentLength);
    let answer = larder.get(&format!("/v2/{REPO}/blobs/{digest}")).await;
    assert!(answer.complete && answer.body == content);
    rule.lift();
    let wrong = hub.add_blob(REPO, noise(22, 500_000));
    hub.fault(Target::Cdn, Fault::NoContentLength);
    hub.fault(Target::Cdn, Fault::WrongBytes);
    let answer = larder.get(&format!("/v2/{REPO}/blobs/{wrong}")).await;
    assert!(is_refusal(&answer), "no last chunk of a wrong body");
    assert_nothing_kept(&larder, &wrong, "chunked and wrong");
}

#[tokio::test]
async fn a_manifest_that_is_not_what_was_asked_for_is_never_served() {
    let hub = Hub::plain().await;
    let image = Image::small(23);
    let digest = hub.push(REPO, "latest", &image);
    let other = Image::small(24);
    let lies: Vec<(&str, Plan)> = vec![
        ("wrong bytes", Fault::WrongBytes.into()),
        ("half of it", Fault::Truncated.into()),
        ("more of it", Fault::LongBody(3).into()),
        ("gzip", Fault::GzipEncoding.into()),
        ("a login page", Plan::from(Fault::captive_portal()).past_auth()),
        ("empty", Plan::from(Fault::status(200, image.media_type.as_str(), "")).past_auth()),
        (
            "another manifest",
            Plan::from(Fault::status(200, other.media_type.as_str(), other.manifest.clone())).past_auth(),
        ),
        ("endless", Fault::Endless.into()),
        ("cut short", Fault::ShortBody(10).into()),
        (
            "not a manifest",
            Plan::from(Fault::status(200, image.media_type.as_str(), "{\"schemaVersion\":2}")).past_auth(),
        ),
        (
            "a schema 1 manifest",
            Plan::from(Fault::status(
                200,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                "{\"schemaVersion\":1,\"fsLayers\":[]}",
            ))
            .past_auth(),
        ),
    ];
    for (case, plan) in lies {
        let larder = Larder::mirroring(&hub).await;
        let rule = hub.fault(Target::ManifestGet, plan);
        for path in [format!("/v2/{REPO}/manifests/{digest}"), TAG.to_owned()] {
            let answer = larder.get(&path).await;
            assert!([404, 503].contains(&answer.status), "{case}: {path} is {}", answer.status);
            assert!(answer.json()["errors"][0]["message"].is_string(), "{case}");
        }
        assert_nothing_kept(&larder, &digest, case);
        rule.lift();
        larder.until_up().await;
        assert_eq!(larder.get(&format!("/v2/{REPO}/manifests/{digest}")).await.body, image.manifest, "{case}");
    }
}

#[tokio::test]
async fn headers_of_upstream_decide_nothing_that_the_bytes_decide() {
    let hub = Hub::plain().await;
    let image = Image::docker(25, &[1000]);
    let digest = hub.push(REPO, "latest", &image);
    let header = |value: Option<&str>| Fault::WrongContentType(value.map(str::to_owned));
    for (case, fault) in [
        ("text/plain", header(Some("text/plain"))),
        ("octets", header(Some("application/octet-stream"))),
        ("with a charset", header(Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"))),
        ("another manifest's", header(Some("application/vnd.oci.image.index.v1+json"))),
        ("none", header(None)),
    ] {
        let larder = Larder::mirroring(&hub).await;
        let rule = hub.fault(Target::Manifest, fault);
        for path in [TAG.to_owned(), format!("/v2/{REPO}/manifests/{digest}")] {
            let answer = larder.get(&path).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some(image.media_type.as_str())),
                "{case}"
            );
        }
        rule.lift();
    }
    // A digest that a HEAD makes up is asked for, and what comes is verified.
    let larder = Larder::mirroring(&hub).await;
    hub.fault(Target::ManifestHead, Fault::LyingDigestHeader);
    let answer = larder.get(TAG).await;
    assert_ne!(answer.status, 200);
    assert_sound(&larder.data());
}

#[tokio::test]
async fn credentials_and_requests_stay_with_the_registry() {
    let hub = Hub::tls().await;
    let canary = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = canary.local_addr().unwrap();
    hub.settings(|settings| drop(settings.accounts.insert("me".into(), "hunter2-planted".into())));
    hub.push(REPO, "latest", &Image::small(26));
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "hunter2-planted\n").unwrap();
    let account = format!("username = \"me\"\npassword_file = {password:?}");
    for realm in [
        format!("http://auth.hub.localhost:{}/token", elsewhere.port()),
        format!("https://evil.localhost:{}/token", elsewhere.port()),
        format!("https://registry-1.hub.localhost@evil.localhost:{}/token", elsewhere.port()),
        format!("https://127.0.0.1:{}/token", elsewhere.port()),
        "file:///etc/passwd".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        hub.expire_tokens();
        let larder = Larder::configured(&hub, "", &account).await;
        let rule = hub.fault(Target::Manifest, Fault::Realm(realm.clone()));
        assert_eq!(larder.get(TAG).await.status, 503, "{realm}");
        rule.lift();
        larder.until_up().await;
        assert_eq!(larder.get(TAG).await.status, 200, "{realm}: with its own realm it works");
    }
    let asked = tokio::time::timeout(std::time::Duration::ZERO, canary.accept()).await;
    assert!(asked.is_err(), "a realm of an upstream's choosing was connected to");
    let basic = hub.count(|seen: &crate::support::hub::Seen| {
        seen.header(hyper::header::AUTHORIZATION).is_some_and(|value| value.starts_with("Basic"))
            && !seen.is(Target::Token)
    });
    assert_eq!(basic, 0, "the password goes to the token service alone");
}

#[tokio::test]
async fn a_sha512_question_is_never_answered_by_sha256() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let content = noise(27, 1000);
    hub.add_blob(REPO, content.clone());
    let sha512 = Digest::of(Algorithm::Sha512, &noise(28, 1000));
    hub.fault(Target::Blob, Plan::from(Fault::status(200, "application/octet-stream", content)).past_auth());
    let answer = larder.get(&format!("/v2/{REPO}/blobs/{sha512}")).await;
    assert!(is_refusal(&answer));
    assert_nothing_kept(&larder, &sha512, "sha512");
}
