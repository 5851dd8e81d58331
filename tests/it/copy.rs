//! `larder copy` and `/api/copy`: an image into a repository of ours, linked and not copied, whole or not at all.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larder::hosted::GRACE;
use larder::oci::Digest;
use serde_json::{Value, json};

use crate::support::binary::{beside, larder};
use crate::support::client::{Answer, Call};
use crate::support::hub::{Hub, Seen, Target};
use crate::support::image::Image;
use crate::support::larder::{Larder, assert_sound, files};
use crate::support::pushing::Remote;

const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\n\
     delete = [\"*\"]\nimmutable_tags = [\"v*\"]";

async fn order(larder: &Larder, source: &str, destination: &str, platforms: &[&str]) -> Answer {
    let order = json!({"source": source, "destination": destination, "platforms": platforms});
    Call::new("POST", "/api/copy")
        .header("Content-Type", "application/json")
        .body(order.to_string().as_bytes())
        .send(larder.admin())
        .await
}

/// The last line of what is told.
fn ended(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.complete);
    serde_json::from_str(answer.text().lines().rfind(|line| !line.is_empty()).unwrap()).unwrap()
}

async fn copied(larder: &Larder, source: &str, destination: &str, platforms: &[&str]) -> Value {
    let ended = ended(&order(larder, source, destination, platforms).await);
    assert!(ended["error"].is_null(), "{ended}");
    ended["done"].clone()
}

async fn refused(larder: &Larder, source: &str, destination: &str, platforms: &[&str]) -> (u16, String) {
    let answer = order(larder, source, destination, platforms).await;
    (answer.status, answer.text())
}

async fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = larder();
    command.args(arguments);
    beside(command).await
}

#[tokio::test]
async fn a_cached_image_is_linked_during_an_outage_and_is_on_disk_once() {
    let hub = Hub::plain().await;
    let image = Image::index_with_attestations(&[Image::oci(1, &[300_000, 20]), Image::small(2)]);
    hub.push("library/python", "3.11", &image);
    let larder = Larder::hosting(&hub, OPEN).await;
    Remote::new(larder.mirror(), "library/python").assert_pulls("3.11", &image).await;
    larder.until_idle().await;
    hub.stop().await;

    let before = files(&larder.data().join("blobs"));
    let done = copied(&larder, "python:3.11", "golden/python:v1", &[]).await;
    assert_eq!(done["digest"], image.digest().to_string());
    assert_eq!((done["manifests"].clone(), done["is_new_index"].clone()), (json!(5), json!(false)));
    assert_eq!(files(&larder.data().join("blobs")).len(), before.len(), "nothing came to be twice");
    for (path, _) in before {
        assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 1, "{path:?}");
    }
    Remote::new(larder.registry(), "golden/python").assert_pulls("v1", &image).await;
}

#[tokio::test]
async fn what_is_not_cached_is_fetched_once_and_survives_the_cache() {
    let hub = Hub::plain().await;
    let image = Image::index(&[Image::oci(1, &[100_000]), Image::small(2)]);
    hub.push("library/python", "3.11", &image);
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let (code, out, err) = command(&[
        "copy",
        "docker.io/library/python:3.11",
        "golden/base/python:v3",
        "--admin",
        &larder.admin().to_string(),
    ])
    .await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("golden/base/python:v3 is docker.io/library/python:3.11\n"), "{out}");
    assert!(out.contains(&image.digest().to_string()), "{out}");
    for blob in image.children.iter().flat_map(Image::blob_digests) {
        assert_eq!(hub.count(move |seen: &Seen| seen.is(Target::Cdn) && seen.path.contains(&blob.hex())), 1, "{blob}");
    }
    // It is ours now, whatever becomes of what was cached.
    larder.stop().await;
    std::fs::remove_dir_all(larder.data().join("cached")).unwrap();
    std::fs::remove_dir_all(larder.data().join("index")).unwrap();
    hub.stop().await;
    larder.start().await;
    for _ in 0..2 {
        larder.hosted().garbage().await.unwrap();
        larder.clock.advance(GRACE);
        larder.hosted().collect_garbage(GRACE).await.unwrap();
    }
    Remote::new(larder.registry(), "golden/base/python").assert_pulls("v3", &image).await;
    assert_sound(&larder.data());
}

#[tokio::test]
async fn one_platform_gets_the_tag_itself_and_several_a_new_index() {
    let hub = Hub::plain().await;
    let images = [Image::small(1), Image::small(2), Image::small(3)];
    let image = Image::index_with_attestations(&images);
    hub.push("org/app", "v1", &image);
    let larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "golden/app");

    let one = copied(&larder, "org/app:v1", "golden/app:arm", &["linux/arm64"]).await;
    assert_eq!((&one["digest"], &one["manifests"]), (&json!(images[1].digest().to_string()), &json!(1)));
    repo.assert_pulls("arm", &images[1]).await;

    let two = copied(&larder, "org/app:v1", "golden/app:two", &["linux/amd64", "linux/arm64"]).await;
    assert_eq!(two["is_new_index"], json!(true));
    let index = repo.get("manifests/two").await;
    assert_eq!(index.header("docker-content-digest"), two["digest"].as_str());
    let listed: Vec<String> = index.json()["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    let kept = [0, 1, 3, 4].map(|n| image.children[n].digest().to_string());
    assert_eq!(listed, kept, "the chosen ones and what attests to them");
    for n in [0, 1, 3, 4] {
        repo.assert_pulls(image.children[n].digest(), &image.children[n]).await;
    }
    let third = repo.get(&format!("manifests/{}", images[2].digest())).await;
    assert_eq!(third.status, 404, "nobody chose it");

    let (status, text) = refused(&larder, "org/app:v1", "golden/app:x", &["linux/mips"]).await;
    assert!(status == 400 && text.contains("linux/amd64, linux/arm64, linux/s390x"), "{status} {text}");
    hub.push("org/app", "single", &images[0]);
    let (status, text) = refused(&larder, "org/app:single", "golden/app:x", &["linux/amd64"]).await;
    assert!(status == 400 && text.contains("--platform"), "{status} {text}");
}

#[tokio::test]
async fn an_immutable_tag_keeps_its_meaning_and_nothing_is_fetched_for_it() {
    let hub = Hub::plain().await;
    let (old, new) = (Image::small(1), Image::small(2));
    hub.push("org/app", "old", &old);
    hub.push("org/app", "new", &new);
    let larder = Larder::hosting(&hub, OPEN).await;
    copied(&larder, "org/app:old", "golden/app:v1", &[]).await;
    copied(&larder, "org/app:old", "golden/app:v1", &[]).await;
    let (status, text) = refused(&larder, "org/app:new", "golden/app:v1", &[]).await;
    assert_eq!((status, text.as_str()), (409, "golden/app:v1: tag v1 is immutable\n"));
    assert_eq!(hub.bytes_sent(&new.blob_digests()[1]), 0);
    Remote::new(larder.registry(), "golden/app").assert_pulls("v1", &old).await;
    // Another tag is free, and one of ours is as good a source as any.
    copied(&larder, "golden/app:v1", "golden/other:latest", &[]).await;
    hub.stop().await;
    Remote::new(larder.registry(), "golden/other").assert_pulls("latest", &old).await;
}

#[tokio::test]
async fn what_cannot_be_copied_is_said_why() {
    let hub = Hub::plain().await;
    hub.push("org/app", "v1", &Image::small(1));
    let larder = Larder::hosting(&hub, OPEN).await;
    for (source, destination, status, says) in [
        ("org/app:none", "golden/app", 404, "docker.io/org/app:none"),
        ("org/none", "golden/app", 404, "docker.io/org/none:latest"),
        ("golden/none:v1", "golden/app", 404, "golden/none:v1"),
        ("ghcr.io/org/app", "golden/app", 404, "[[upstream]]"),
        ("org/app:v1", "other/app", 403, "golden/**"),
        (
            "org/app:v1",
            "golden/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            400,
            "tag",
        ),
        ("org/app:v1 ", "golden/app", 400, "names no image"),
    ] {
        let (got, text) = refused(&larder, source, destination, &[]).await;
        assert!(got == status && text.contains(says), "{source} {destination}: {got} {text}");
    }
    hub.stop().await;
    let (status, text) = refused(&larder, "org/app:v1", "golden/app", &[]).await;
    assert_eq!(status, 503, "{text}");
    let tags = Remote::new(larder.registry(), "golden/app").get("tags/list").await;
    assert_eq!(tags.status, 404, "nothing has come to be: {}", tags.text());
    let url = larder.admin().to_string();
    let (code, out, err) = command(&["copy", "org/app:v1", "golden/app", "--admin", &url]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.starts_with("larder: docker.io/org/app:v1: docker.io: ") && err.lines().count() == 1, "{err}");
    assert_eq!(command(&["copy", "a b", "golden/app"]).await.0, Some(2));

    let alone = Larder::mirroring(&hub).await;
    let (status, text) = refused(&alone, "org/app:v1", "golden/app", &[]).await;
    assert!(status == 409 && text.contains("[registry]"), "{status} {text}");
}

/// A layer breaks for good after the copy has begun: the tag does not come to be, and the client hears why.
#[tokio::test]
async fn a_copy_that_breaks_off_leaves_no_tag() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("org/app", "v1", &image);
    hub.remove_blob("org/app", image.blob_digests()[1]);
    let larder = Larder::hosting(&hub, OPEN).await;
    let last = ended(&order(&larder, "org/app:v1", "golden/app:v1", &[]).await);
    let error = last["error"].as_str().unwrap();
    assert!(error.contains(&image.blob_digests()[1].to_string()), "{error}");
    assert_eq!(Remote::new(larder.registry(), "golden/app").get("manifests/v1").await.status, 404);
}

/// What was copied is deleted and copied again, while what nobody named an hour ago is collected. The clock moves only
/// between copies, so that none is longer than the grace period.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_garbage_is_collected_from_under_a_copy() {
    /// Links that have to be collected meanwhile, and copies that are made for that at most.
    const ENOUGH: u64 = 20;
    const MOST_ROUNDS: usize = 2_000;
    let hub = Hub::plain().await;
    let images: Vec<Image> = (0..3).map(|n| Image::oci(n, &[3000, 400, 50])).collect();
    for (n, image) in images.iter().enumerate() {
        hub.push("org/app", &format!("v{n}"), image);
    }
    let (larder, done) = (Arc::new(Larder::hosting(&hub, OPEN).await), Arc::new(AtomicBool::new(false)));
    let repo = Remote::new(larder.registry(), "golden/app");
    let links = Arc::new(AtomicU64::new(0));
    let collecting = {
        let (larder, done, links) = (larder.clone(), done.clone(), links.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let collected = larder.hosted().collect_garbage(GRACE).await.unwrap();
                links.fetch_add(collected.links, Ordering::SeqCst);
            }
        })
    };
    for round in 0..MOST_ROUNDS {
        if links.load(Ordering::SeqCst) >= ENOUGH {
            break;
        }
        let image = &images[round % images.len()];
        copied(&larder, &format!("org/app:v{}", round % images.len()), "golden/app:now", &[]).await;
        repo.assert_pulls("now", image).await;
        assert_eq!(repo.ask("DELETE", &format!("manifests/{}", image.digest())).await.status, 202);
        larder.clock.advance(GRACE / 2);
    }
    done.store(true, Ordering::SeqCst);
    collecting.await.unwrap();
    let links = links.load(Ordering::SeqCst);
    assert!(links >= ENOUGH, "it was not put to the test: {links} collected");
    assert_sound(&larder.data());
}

#[tokio::test]
async fn a_copy_needs_the_operators_token() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("org/app", "v1", &image);
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let token = larder.restart_with_token("0123456789abcdef-of-the-operator").await;
    let url = larder.admin().to_string();
    let arguments = ["copy", "org/app:v1", "golden/app", "--admin", &url];
    let (code, _, err) = command(&arguments).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("--admin-token-file"), "{err}");
    let file = token.to_str().unwrap();
    let (code, _, err) = command(&[&arguments[..], &["--admin-token-file", file]].concat()).await;
    assert_eq!(code, Some(0), "{err}");
    Remote::new(larder.registry(), "golden/app").assert_pulls("latest", &image).await;
    let digest = Digest::sha256(&image.manifest).to_string();
    let (code, out, _) = command(&[&arguments[..], &["--json", "--admin-token-file", file]].concat()).await;
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["digest"], digest);
    let (code, _, err) = command(&[&arguments[..], &["--admin-token-file", "/no/such"]].concat()).await;
    assert!(code == Some(2) && err.contains("/no/such: cannot be read"), "{err}");
}

/// What a repository of ours lists as referring to an image.
async fn referrers(repo: &Remote, subject: &Image) -> Vec<String> {
    let listed = repo.get(&format!("referrers/{}", subject.digest())).await.json();
    listed["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn signatures_and_sboms_come_along_when_that_is_asked_for() {
    let hub = Hub::plain().await;
    let image = Image::index_with_attestations(&[Image::small(1), Image::small(2)]);
    let signature = Image::referrer(3, "test/signature", &image);
    let (on_top, sbom) =
        (Image::referrer(4, "test/timestamp", &signature), Image::referrer(5, "test/sbom", &image.children[1]));
    let cosign = Image::small(6);
    let tag = format!("sha256-{}.sig", image.digest().hex());
    hub.push("org/app", "v1", &image);
    for attached in [&signature, &on_top, &sbom] {
        hub.push_untagged("org/app", attached);
    }
    hub.push("org/app", &tag, &cosign);
    let larder = Larder::hosting(&hub, OPEN).await;
    let (plain, whole) =
        (Remote::new(larder.registry(), "golden/plain"), Remote::new(larder.registry(), "golden/whole"));

    assert_eq!(copied(&larder, "org/app:v1", "golden/plain:v1", &[]).await["referrers"], 0);
    assert!(referrers(&plain, &image).await.is_empty() && plain.get(&format!("manifests/{tag}")).await.status == 404);

    let admin = larder.admin().to_string();
    let (code, out, err) = command(&["copy", "org/app:v1", "golden/whole:v1", "--referrers", "--admin", &admin]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("; with 4 that refer to it\n"), "{out}");
    whole.assert_pulls("v1", &image).await;
    whole.assert_pulls(&tag, &cosign).await;
    for (subject, attached) in [(&image, &signature), (&signature, &on_top), (&image.children[1], &sbom)] {
        assert_eq!(referrers(&whole, subject).await, [attached.digest().to_string()]);
        whole.assert_pulls(attached.digest(), attached).await;
    }
    // From a repository of ours to another likewise.
    let order = json!({"source": "golden/whole:v1", "destination": "golden/again:v1", "referrers": true});
    let again = Call::new("POST", "/api/copy").header("Content-Type", "application/json");
    let again = ended(&again.body(order.to_string().as_bytes()).send(larder.admin()).await);
    assert_eq!(again["done"]["referrers"], 4, "{again}");
    assert_eq!(
        referrers(&Remote::new(larder.registry(), "golden/again"), &image).await,
        [signature.digest().to_string()]
    );
}

#[tokio::test]
async fn of_a_registry_without_referrers_the_list_under_the_fallback_tag_comes_along() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    let signature = Image::referrer(3, "test/signature", &image);
    hub.settings(|settings| settings.referrers_api = false);
    hub.push("org/app", "v1", &image);
    hub.push_untagged("org/app", &signature);
    let larder = Larder::hosting(&hub, OPEN).await;
    let order = json!({"source": "org/app:v1", "destination": "golden/app:v1", "referrers": true});
    let answer = Call::new("POST", "/api/copy").header("Content-Type", "application/json");
    let ended = ended(&answer.body(order.to_string().as_bytes()).send(larder.admin()).await);
    assert!(ended["error"].is_null(), "{ended}");
    let repo = Remote::new(larder.registry(), "golden/app");
    assert_eq!(referrers(&repo, &image).await, [signature.digest().to_string()]);
    repo.assert_pulls(signature.digest(), &signature).await;
}

#[tokio::test]
async fn what_refers_to_an_image_and_cannot_be_learnt_is_no_copy() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("org/app", "v1", &image);
    let larder = Larder::hosting(&hub, OPEN).await;
    Remote::new(larder.mirror(), "org/app").assert_pulls("v1", &image).await;
    larder.until_idle().await;
    hub.stop().await;
    let order = json!({"source": "org/app:v1", "destination": "golden/app:v1", "referrers": true});
    let answer = Call::new("POST", "/api/copy").header("Content-Type", "application/json");
    let answer = answer.body(order.to_string().as_bytes()).send(larder.admin()).await;
    assert!(answer.text().contains("without --referrers it can be copied"), "{}", answer.text());
    assert_eq!(Remote::new(larder.registry(), "golden/app").get("manifests/v1").await.status, 404);
}
