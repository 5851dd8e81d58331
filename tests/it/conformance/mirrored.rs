//! The mirror's address and the registry's: what is hosted never comes from an upstream, what is cached is never hosted.

use larder::oci::Digest;

use super::Registry;
use crate::support::client::Call;
use crate::support::image::Image;
use crate::support::pushing::{Remote, refusal};

const RULES: &str = "anonymous = \"push\"\n\
    [[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\nmirror = true\nimmutable_tags = [\"v*\"]\ndelete = [\"*\"]\n\
    [[registry.repository]]\npattern = \"team/**\"\npush = [\"*\"]\n\
    [[registry.repository]]\npattern = \"library/ours\"\npush = [\"*\"]\nmirror = true";

#[tokio::test]
async fn a_golden_image_is_pulled_through_the_mirror_and_no_upstream_is_asked() {
    let registry = Registry::with(RULES).await;
    let image = Image::index(&[Image::oci(1, &[70_000, 300]), Image::small(2)]);
    registry.repo("golden/python").push("v3", &image).await;
    let mirror = Remote::new(registry.larder.mirror(), "golden/python");
    mirror.assert_pulls("v3", &image).await;
    let part = Call::get(&mirror.path(&format!("blobs/{}", image.children[0].layer(0).0))).header("Range", "bytes=5-9");
    assert_eq!(part.send(mirror.at).await.status, 206);
    assert_eq!(mirror.get("tags/list").await.json()["tags"], serde_json::json!(["v3"]));
    for query in ["?ns=docker.io", "?ns=ghcr.io"] {
        let answer = mirror.get(&format!("manifests/v3{query}")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]), "{query}");
    }
    let prefixed = Remote::new(mirror.at, "docker.io/golden/python");
    assert_eq!(prefixed.get("manifests/v3").await.body, image.manifest);
    // What is not in it is not looked for anywhere else.
    assert_eq!(refusal(&mirror.get("manifests/v4").await), (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(
        mirror.get("referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").await.status,
        200
    );
    assert_eq!(registry.hub.connections(), 0);
}

#[tokio::test]
async fn an_upstreams_image_of_a_name_of_ours_is_never_seen() {
    let registry = Registry::with(RULES).await;
    let evil = Image::small(666);
    for name in ["golden/python", "team/secret", "library/ours"] {
        registry.hub.push(name, "latest", &evil);
    }
    for name in ["golden/python", "team/secret", "library/ours", "ours", "docker.io/ours", "docker.io/team/secret"] {
        let mirror = Remote::new(registry.larder.mirror(), name);
        let digest = Digest::sha256(&evil.manifest);
        for path in ["manifests/latest".to_owned(), format!("manifests/{digest}"), "tags/list".into()] {
            for query in ["", "?ns=docker.io"] {
                let answer = mirror.get(&format!("{path}{query}")).await;
                assert_eq!(refusal(&answer), (404, "NAME_UNKNOWN".into()), "{name} {path}{query}");
            }
        }
    }
    assert_eq!(registry.hub.connections(), 0);
    let ours = Image::small(7);
    registry.repo("library/ours").push("latest", &ours).await;
    Remote::new(registry.larder.mirror(), "ours").assert_pulls("latest", &ours).await;
}

#[tokio::test]
async fn what_the_mirror_does_not_show_looks_like_nothing() {
    let registry = Registry::with(RULES).await;
    let image = Image::small(1);
    let digest = registry.repo("team/secret").push("latest", &image).await;
    let [there, not_there] = ["team/secret", "team/absent"].map(|name| Remote::new(registry.larder.mirror(), name));
    let blob = image.layer(0).0;
    for path in [
        "manifests/latest".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{blob}"),
        "tags/list".into(),
        format!("referrers/{digest}"),
    ] {
        let (one, other) = (there.get(&path).await, not_there.get(&path).await);
        let shape = |answer: &crate::support::client::Answer| (answer.status, answer.text());
        assert_eq!(shape(&one), shape(&other), "{path}");
        assert_ne!(one.body, image.manifest);
    }
    // Nor is it there under another name, although its bytes are on the same disk.
    for name in ["golden/python", "library/other"] {
        let mirror = Remote::new(registry.larder.mirror(), name);
        assert_eq!(mirror.get(&format!("manifests/{digest}")).await.status, 404, "{name}");
        assert_eq!(mirror.get(&format!("blobs/{blob}")).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn what_is_cached_is_not_hosted() {
    let registry = Registry::with(RULES).await;
    let image = Image::small(5);
    registry.hub.push("library/alpine", "latest", &image);
    let mirror = Remote::new(registry.larder.mirror(), "library/alpine");
    mirror.assert_pulls("latest", &image).await;
    let blob = image.layer(0).0;
    let repo = registry.repo("team/app");
    assert_eq!(repo.head(&format!("blobs/{blob}")).await.status, 404);
    let mount = repo.ask("POST", &format!("blobs/uploads/?mount={blob}&from=library/alpine")).await;
    assert_eq!(mount.status, 202, "nothing is mounted from what is not hosted");
    let put = repo.put("latest", image.media_type.as_str(), &image.manifest).await;
    assert_eq!(refusal(&put), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    assert_eq!(refusal(&registry.repo("library/alpine").get("manifests/latest").await), (404, "NAME_UNKNOWN".into()));
    // Pushed, it is both, in one file.
    repo.push("latest", &image).await;
    repo.assert_pulls("latest", &image).await;
    mirror.assert_pulls("latest", &image).await;
    let digest = Digest::sha256(&image.manifest);
    let catalogue = Call::get("/v2/_catalog").send(registry.larder.registry()).await;
    assert_eq!(catalogue.json()["repositories"], serde_json::json!(["team/app"]));
    let catalogue = Call::get("/v2/_catalog").send(registry.larder.mirror()).await;
    assert_eq!(catalogue.json()["repositories"], serde_json::json!(["docker.io/library/alpine"]));
    assert_eq!(mirror.get(&format!("manifests/{digest}")).await.status, 200);
}

#[tokio::test]
async fn a_push_to_what_is_not_ours_is_denied_with_the_names_that_are() {
    let registry = Registry::with(RULES).await;
    let repo = registry.repo("library/alpine");
    let pushed = [
        repo.ask("POST", "blobs/uploads/").await,
        repo.put("latest", "application/vnd.oci.image.index.v1+json", b"{}").await,
        Remote::new(registry.larder.mirror(), "library/alpine").ask("POST", "blobs/uploads/").await,
        Remote::new(registry.larder.mirror(), "golden/python").ask("POST", "blobs/uploads/").await,
    ];
    for answer in &pushed {
        assert_eq!(refusal(answer), (403, "DENIED".into()));
        assert!(answer.text().contains("golden/**, team/**, library/ours"), "{}", answer.text());
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(refusal(&repo.get("manifests/latest").await), (404, "NAME_UNKNOWN".into()));
    assert_eq!(registry.hub.connections(), 0);
}

#[tokio::test]
async fn an_immutable_tag_keeps_its_meaning() {
    let registry = Registry::with(RULES).await;
    let repo = registry.repo("golden/python");
    let (one, two) = (Image::small(1), Image::small(2));
    let digest = repo.push("v1", &one).await;
    repo.push("latest", &two).await;
    let put = repo.put("v1", two.media_type.as_str(), &two.manifest).await;
    assert_eq!(refusal(&put), (403, "DENIED".into()));
    assert!(put.text().contains("tag v1 is immutable"), "{}", put.text());
    let by_digest = format!("{}?tag=latest&tag=v1", Digest::sha256(&two.manifest));
    assert_eq!(repo.put(by_digest, two.media_type.as_str(), &two.manifest).await.status, 403);
    assert_eq!(repo.put("v1", one.media_type.as_str(), &one.manifest).await.status, 201, "the same again is no change");
    assert_eq!(repo.push("latest", &one).await, digest, "other tags move");
    repo.assert_pulls("v1", &one).await;
    assert_eq!(repo.ask("DELETE", "manifests/v1").await.status, 202, "who may delete may delete it");
}
