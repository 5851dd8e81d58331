//! An account at the upstream is there for its rate limit: what only the account can read, clients do not get, on no
//! path and in no outage, unless the operator listed it.

use std::time::Duration;

use hyper::header::AUTHORIZATION;
use serde_json::json;
use tempfile::TempDir;

use crate::stale::until_out_of_order;
use crate::support::client::{Answer, Call};
use crate::support::hub::{Hub, Seen, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const SECRET: &str = "team/secret";
const PUBLIC: &str = "library/alpha";
const DAY: Duration = Duration::from_secs(24 * 3600 + 60);

/// A hub with a public and a private repository, and the lines that let the mirror log in there.
async fn hub() -> (Hub, TempDir, String) {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    hub.push(SECRET, "latest", &Image::small(1));
    hub.push(PUBLIC, "latest", &Image::small(2));
    hub.make_private(SECRET);
    hub.settings(|settings| {
        settings.accounts.insert("me".into(), "password".into());
    });
    let file = home.path().join("password");
    std::fs::write(&file, "password").unwrap();
    (hub, home, format!("username = \"me\"\npassword_file = {file:?}"))
}

fn latest(repository: &str) -> String {
    format!("/v2/{repository}/manifests/latest")
}

fn assert_denied(answer: &Answer, path: &str) {
    assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str()), (403, Some("DENIED")), "{path}");
    let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("`private`"), "{path}: {message}");
    assert_eq!(answer.header("www-authenticate"), None, "{path}: a mirror never challenges");
}

async fn catalogue(larder: &Larder) -> serde_json::Value {
    larder.get("/v2/_catalog").await.json()["repositories"].clone()
}

/// Fetches all of an image.
async fn pull(larder: &Larder, repository: &str, image: &Image) {
    assert_eq!(larder.get(&latest(repository)).await.body, image.manifest);
    for digest in image.blob_digests() {
        assert!(larder.get(&format!("/v2/{repository}/blobs/{digest}")).await.complete);
    }
}

#[tokio::test]
async fn what_only_the_account_can_read_is_denied_on_every_path() {
    let (hub, _home, account) = hub().await;
    let larder = Larder::configured(&hub, "", &account).await;
    pull(&larder, PUBLIC, &Image::small(2)).await;
    let secret = Image::small(1);
    let (manifest, blob) = (secret.digest(), secret.layer(0).0);
    for path in [
        latest(SECRET),
        format!("/v2/{SECRET}/manifests/{manifest}"),
        format!("/v2/{SECRET}/blobs/{blob}"),
        format!("/v2/{SECRET}/tags/list"),
        format!("/v2/{SECRET}/referrers/{manifest}"),
    ] {
        assert_denied(&larder.get(&path).await, &path);
        assert_eq!(larder.head(&path).await.status, 403, "{path}");
        let range = Call::get(&path).header("range", "bytes=0-9").send(larder.mirror()).await;
        assert_denied(&range, &path);
    }
    let with_account = |seen: &Seen| seen.path.contains(SECRET) && seen.is(Target::Manifest);
    assert_eq!(hub.count(with_account), 0, "the account is not used for it at all");
    // The index is told of what is on disk in its own time.
    while catalogue(&larder).await != json!([format!("docker.io/{PUBLIC}")]) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whether_a_repository_is_for_everyone_is_asked_once_and_without_the_account() {
    let (hub, _home, account) = hub().await;
    let mut larder = Larder::configured(&hub, "", &account).await;
    pull(&larder, PUBLIC, &Image::small(2)).await;
    larder.restart().await;
    pull(&larder, PUBLIC, &Image::small(2)).await;
    let asked: Vec<Seen> = hub.requests().into_iter().filter(|seen| seen.is(Target::Tags)).collect();
    let answered: Vec<&Seen> = asked.iter().filter(|seen| seen.status == Some(200)).collect();
    assert_eq!(answered.len(), 1, "{asked:#?}");
    let basic = |seen: &&Seen| seen.header(AUTHORIZATION).is_some_and(|value| value.starts_with("Basic"));
    assert!(!asked.iter().any(|seen| basic(&seen)));
}

#[tokio::test]
async fn what_the_operator_lists_as_private_is_served() {
    let (hub, _home, account) = hub().await;
    let larder = Larder::configured(&hub, "", &format!("{account}\nprivate = [\"team/*\"]")).await;
    pull(&larder, SECRET, &Image::small(1)).await;
    while catalogue(&larder).await != json!([format!("docker.io/{SECRET}")]) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn in_an_outage_the_remembered_answer_holds_and_without_one_nothing_is_served() {
    let (hub, _home, account) = hub().await;
    let mut larder = Larder::configured(&hub, "", &account).await;
    pull(&larder, PUBLIC, &Image::small(2)).await;
    assert_denied(&larder.get(&latest(SECRET)).await, "asked");
    larder.stop().await;
    hub.stop().await;
    larder.clock.advance(DAY);
    larder.start().await;
    let known = until_out_of_order(&larder, &latest(PUBLIC)).await;
    assert_eq!((known.status, &known.body[..]), (200, &Image::small(2).manifest[..]));
    let unknown = larder.get(&latest(SECRET)).await;
    assert_eq!(unknown.status, 503);
    assert!(unknown.text().contains("whether team/secret is for everyone is not known"), "{}", unknown.text());
    let referrers = larder.get(&format!("/v2/{SECRET}/referrers/{}", Image::small(1).digest())).await;
    assert_eq!((referrers.status, referrers.json()["manifests"].clone()), (200, json!([])), "it gives nothing away");
    assert_eq!(larder.get(&format!("/v2/{SECRET}/blobs/{}", Image::small(1).digest())).await.status, 404);
}

#[tokio::test]
async fn a_repository_that_becomes_private_is_noticed_within_a_day_and_not_forgotten() {
    let (hub, _home, account) = hub().await;
    let mut larder = Larder::configured(&hub, "", &account).await;
    pull(&larder, PUBLIC, &Image::small(2)).await;
    hub.make_private(PUBLIC);
    larder.clock.advance(DAY);
    let by_digest = format!("/v2/{PUBLIC}/manifests/{}", Image::small(2).digest());
    assert_eq!(larder.get(&by_digest).await.status, 200, "nobody waits for the question");
    while larder.get(&by_digest).await.status == 200 {
        tokio::task::yield_now().await;
    }
    assert_denied(&larder.get(&by_digest).await, "now it is known");
    hub.stop().await;
    larder.restart().await;
    assert_denied(&larder.get(&by_digest).await, "after a restart in an outage");
}

#[tokio::test]
async fn an_account_that_comes_later_locks_nothing_that_was_for_everyone() {
    let (hub, _home, account) = hub().await;
    let mut larder = Larder::configured(&hub, "", "").await;
    pull(&larder, PUBLIC, &Image::small(2)).await;
    hub.stop().await;
    larder.restart_with(&account).await;
    assert_eq!(larder.get(&latest(PUBLIC)).await.body, Image::small(2).manifest);
}

#[tokio::test]
async fn a_repository_that_does_not_exist_is_absent_where_the_registry_says_so() {
    let (hub, _home, account) = hub().await;
    hub.settings(|settings| settings.auth = false);
    let larder = Larder::configured(&hub, "", &account).await;
    for _ in 0..3 {
        assert_eq!(larder.get(&latest("library/none")).await.status, 404);
    }
    assert_eq!(hub.count(Target::Tags), 1, "it is not asked about again at once");
}
