//! What is cached, as images: `/api/images`, `larder ls` and `larder rm`.

use std::time::Duration;

use larder::oci::Digest;
use serde_json::{Value, json};

use crate::support::binary;
use crate::support::client::{Answer, Call, get};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::Image;
use crate::support::larder::{Larder, assert_sound, used};
use crate::support::pushing::Remote;

const SMALL: &str = "min_free = \"0\"\n";

async fn pull(larder: &Larder, repository: &str, tag: &str, image: &Image) {
    let manifest = larder.get(&format!("/v2/{repository}/manifests/{tag}")).await;
    assert_eq!((manifest.status, &manifest.body[..]), (200, &image.manifest[..]));
    for digest in image.blob_digests() {
        assert_eq!(larder.get(&format!("/v2/{repository}/blobs/{digest}")).await.status, 200);
    }
    larder.until_idle().await;
}

async fn images(larder: &Larder, query: &str) -> Vec<Value> {
    let answer = get(larder.admin(), &format!("/api/images{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().as_array().unwrap().clone()
}

async fn remove(larder: &Larder, query: &str) -> Answer {
    Call::new("DELETE", &format!("/api/images?image={query}"))
        .header("X-Larder-Request", "1")
        .send(larder.admin())
        .await
}

fn is_here(larder: &Larder, digest: &Digest) -> bool {
    let hex = digest.hex();
    larder.data().join("blobs/sha256").join(&hex[..2]).join(&hex).exists()
}

/// An image with the layers of another and one of its own.
fn on_top_of(base: &Image, seed: u64) -> Image {
    let own = Image::oci(seed, &[200_000]);
    let (mut manifest, below): (Value, Value) =
        (serde_json::from_slice(&own.manifest).unwrap(), serde_json::from_slice(&base.manifest).unwrap());
    let layers = [&below["layers"], &manifest["layers"]].map(|layers| layers.as_array().unwrap().clone()).concat();
    manifest["layers"] = json!(layers);
    let blobs = [&own.blobs[..1], &base.blobs[1..], &own.blobs[1..]].concat();
    Image::from_json(own.media_type, &manifest, blobs)
}

#[tokio::test]
async fn the_pages_of_a_list_are_told_from_one_look_at_everything() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, SMALL, "").await;
    for (seed, name) in [(71, "library/a"), (72, "library/b")] {
        let image = Image::small(seed);
        hub.push(name, "latest", &image);
        pull(&larder, name, "latest", &image).await;
    }
    let first = images(&larder, "?n=1").await.remove(0);
    let text = |key: &str| first[key].as_str().unwrap();
    let rest = format!("?after={}@{}", text("image"), text("digest"));
    let image = Image::small(73);
    hub.push("library/c", "latest", &image);
    pull(&larder, "library/c", "latest", &image).await;
    assert_eq!(images(&larder, &rest).await.len(), 1, "what has come since the first page is not looked for");
    assert_eq!(images(&larder, &rest).await.len(), 2, "after the last page it is");
}

#[tokio::test]
async fn what_an_image_takes_alone_and_shared_is_what_the_disk_says() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, SMALL, "").await;
    let (base, began) = (Image::oci(1, &[500_000, 70_000]), larder.clock.unix_seconds());
    let app = on_top_of(&base, 2);
    hub.push("library/base", "latest", &base);
    hub.push("team/app", "v1", &app);
    pull(&larder, "library/base", "latest", &base).await;
    let base_alone = used(&larder.data());
    let [only] = &images(&larder, "").await[..] else { panic!("one image") };
    assert_eq!((only["bytes"].as_u64(), only["shared_bytes"].as_u64()), (Some(base_alone), Some(0)));
    assert_eq!((only["image"].as_str(), &only["tags"]), (Some("docker.io/library/base"), &json!(["latest"])));
    assert_eq!(
        (only["digest"].as_str(), only["upstream"].as_str()),
        (Some(&*base.digest().to_string()), Some("docker.io"))
    );
    assert_eq!((&only["platforms"], &only["hosted"]), (&json!(["linux/amd64"]), &json!(false)));
    assert_eq!((&only["complete"], &only["pinned"], &only["stale"]), (&json!(true), &json!(false), &json!(false)));
    assert!((began..=larder.clock.unix_seconds()).contains(&only["last_used"].as_u64().unwrap()));

    pull(&larder, "team/app", "v1", &app).await;
    let both = images(&larder, "").await;
    let number = |at: usize, key: &str| both[at][key].as_u64().unwrap();
    assert_eq!(number(0, "bytes") + number(0, "shared_bytes"), base_alone);
    assert_eq!(number(0, "shared_bytes"), number(1, "shared_bytes"), "the two layers");
    assert_eq!(number(0, "bytes") + number(1, "bytes") + number(1, "shared_bytes"), used(&larder.data()));

    assert_eq!(images(&larder, "?q=base").await.len(), 1);
    assert_eq!(images(&larder, "?q=app%3Av1").await.len(), 1);
    assert_eq!(images(&larder, "?q=nothing").await.len(), 0);
    let first = &images(&larder, "?n=1").await[0];
    let after = format!("?n=1&after={}%40{}", first["image"].as_str().unwrap(), first["digest"].as_str().unwrap());
    assert_eq!(images(&larder, &after).await[0]["image"], "docker.io/team/app");
}

#[tokio::test]
async fn rm_frees_exactly_what_it_said_and_what_others_need_stays() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, SMALL, "").await;
    let base = Image::oci(11, &[500_000, 70_000]);
    let app = on_top_of(&base, 12);
    hub.push("library/base", "latest", &base);
    hub.push("library/base", "v1", &base);
    hub.push("team/app", "v1", &app);
    for (repository, tag, image) in
        [("library/base", "latest", &base), ("library/base", "v1", &base), ("team/app", "v1", &app)]
    {
        pull(&larder, repository, tag, image).await;
    }
    let before = used(&larder.data());
    let answer = remove(&larder, "base:v1").await;
    assert_eq!((answer.status, &answer.json()["digests"]), (200, &json!([])), "another tag means it");
    assert_eq!(used(&larder.data()), before);
    assert_eq!(images(&larder, "?q=base").await[0]["tags"], json!(["latest"]));

    let would = remove(&larder, "base&dry_run=true").await.json();
    assert_eq!(used(&larder.data()), before, "a dry run removes nothing");
    assert_eq!(would["bytes"], images(&larder, "?q=base").await[0]["bytes"]);
    let did = remove(&larder, "base").await.json();
    assert_eq!((&did["bytes"], &did["blobs"]), (&would["bytes"], &would["blobs"]));
    assert_eq!(did["bytes"].as_u64(), Some(before - used(&larder.data())));
    assert!(did["bytes"].as_u64() > Some(0) && images(&larder, "?q=base").await.is_empty());
    assert!(!is_here(&larder, &base.digest()) && is_here(&larder, &base.layer(0).0));

    hub.clear();
    pull(&larder, "team/app", "v1", &app).await;
    assert_eq!(hub.requests().len(), 0, "it is whole");
    // A tag that was in memory is asked about again, and a layer that was held open is no right any more.
    pull(&larder, "library/base", "latest", &base).await;
    assert!(!hub.requests().is_empty());
    let by_digest = format!("team/app@{}", app.digest());
    let gone = remove(&larder, &by_digest).await.json();
    assert_eq!(gone["tags"], json!(["v1"]));
    assert_eq!(remove(&larder, &by_digest).await.status, 404);
    assert_eq!(remove(&larder, "a:b:c").await.status, 400);
    pull(&larder, "library/base", "v1", &base).await;
    assert_eq!(remove(&larder, "base&all_tags=true").await.json()["tags"], json!(["latest", "v1"]));
    assert_eq!(used(&larder.data()), 0);
    assert_sound(&larder.data());
}

#[tokio::test]
async fn what_is_not_whole_or_not_confirmed_is_told() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, SMALL, "").await;
    let image = Image::index(&[Image::small(21), Image::small(22)]);
    hub.push("library/multi", "latest", &image);
    assert_eq!(larder.get("/v2/library/multi/manifests/latest").await.status, 200);
    let [index] = &images(&larder, "").await[..] else { panic!("one image") };
    assert_eq!((&index["complete"], &index["platforms"]), (&json!(false), &json!([])), "only the index was asked for");
    let child = &image.children[1];
    pull(&larder, "library/multi", &child.digest().to_string(), child).await;
    let [index] = &images(&larder, "").await[..] else { panic!("the child is no image of its own") };
    assert_eq!((&index["complete"], &index["platforms"]), (&json!(true), &json!(["linux/arm64"])));

    hub.fault(Target::Manifest, Fault::gateway(502));
    larder.clock.advance(Duration::from_secs(3600));
    larder.get("/v2/library/multi/manifests/latest").await;
    assert_eq!(images(&larder, "").await[0]["stale"], true);
}

#[tokio::test]
async fn our_own_images_are_told_and_not_removed_here() {
    let hub = Hub::plain().await;
    let open = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"*\"]";
    let larder = Larder::hosting(&hub, open).await;
    let image = Image::small(31);
    Remote::new(larder.registry(), "team/app").push("v1", &image).await;
    let [own] = &images(&larder, "").await[..] else { panic!("one image") };
    assert_eq!(
        (own["image"].as_str(), &own["hosted"], &own["upstream"]),
        (Some("team/app"), &json!(true), &Value::Null)
    );
    assert_eq!((own["bytes"].as_u64(), &own["platforms"]), (Some(used(&larder.data())), &json!(["linux/amd64"])));
    let refused = remove(&larder, "team/app:v1").await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("your own registry"), "{}", refused.text());
    Remote::new(larder.registry(), "team/app").assert_pulls("v1", &image).await;
}

#[tokio::test]
async fn no_page_of_another_site_removes_anything() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, SMALL, "").await;
    let image = Image::small(41);
    hub.push("library/a", "latest", &image);
    pull(&larder, "library/a", "latest", &image).await;
    let plain = Call::new("DELETE", "/api/images?image=a").send(larder.admin()).await;
    let foreign = Call::new("DELETE", "/api/images?image=a").header("X-Larder-Request", "1");
    let foreign = foreign.header("Origin", "http://evil.example").send(larder.admin()).await;
    assert_eq!((plain.status, foreign.status), (403, 403));
    assert_eq!(images(&larder, "").await.len(), 1);
}

#[tokio::test]
async fn the_commands_speak_to_a_running_server() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, SMALL, "").await;
    let image = Image::oci(51, &[300_000]);
    hub.push("library/a", "latest", &image);
    pull(&larder, "library/a", "latest", &image).await;
    let url = larder.admin().to_string();
    let run = |arguments: &[&str]| {
        let mut command = binary::larder();
        command.args(arguments).args(["--admin", &url]);
        binary::beside(command)
    };
    let (code, table, err) = run(&["ls"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(table.contains("docker.io/library/a:latest  linux/amd64  "), "{table}");
    let (_, list, _) = run(&["ls", "library/a", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap().as_array().unwrap().len(), 1);
    let (_, none, _) = run(&["ls", "other"]).await;
    assert_eq!(none, "nothing is cached by that name\n");

    let before = used(&larder.data());
    let (code, said, _) = run(&["rm", "a", "--dry-run"]).await;
    assert!(code == Some(0) && said.contains("docker.io/library/a:latest would be removed: "), "{said}");
    let (_, said, _) = run(&["rm", "a", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["bytes"].as_u64(), Some(before));
    let (code, _, err) = run(&["rm", "a"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("docker.io/library/a:latest is not cached here"), "{err}");
}
