//! Content management: what is deleted is gone at once, and nothing else.

use larder::oci::{Digest, MediaType};

use super::{REPO, Registry};
use crate::support::image::Image;
use crate::support::pushing::refusal;

#[tokio::test]
async fn a_deleted_tag_is_gone_and_its_manifest_is_not() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let image = Image::small(1);
    let digest = repo.push("one", &image).await;
    repo.put("two", image.media_type.as_str(), &image.manifest).await;
    assert_eq!(repo.ask("DELETE", "manifests/one").await.status, 202);
    assert_eq!(refusal(&repo.get("manifests/one").await), (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(repo.ask("DELETE", "manifests/one").await.status, 404);
    assert_eq!(repo.get("tags/list").await.json()["tags"], serde_json::json!(["two"]));
    repo.assert_pulls("two", &image).await;
    repo.assert_pulls(digest, &image).await;
}

#[tokio::test]
async fn a_deleted_manifest_takes_all_its_tags_along() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let (image, other) = (Image::small(1), Image::small(2));
    let digest = repo.push("one", &image).await;
    repo.put("two", image.media_type.as_str(), &image.manifest).await;
    repo.push("other", &other).await;
    assert_eq!(repo.ask("DELETE", &format!("manifests/{digest}")).await.status, 202);
    for gone in ["one", "two", &digest.to_string()] {
        assert_eq!(repo.get(&format!("manifests/{gone}")).await.status, 404, "{gone}");
        assert_eq!(repo.head(&format!("manifests/{gone}")).await.status, 404, "{gone}");
    }
    assert_eq!(repo.ask("DELETE", &format!("manifests/{digest}")).await.status, 404);
    assert_eq!(repo.get("tags/list").await.json()["tags"], serde_json::json!(["other"]));
    repo.assert_pulls("other", &other).await;
    // It can be pushed again: its layers are still there.
    assert_eq!(repo.put("one", image.media_type.as_str(), &image.manifest).await.status, 201);
    repo.assert_pulls("one", &image).await;
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_only() {
    let registry = Registry::open().await;
    let (repo, other) = (registry.repo(REPO), registry.repo("other/app"));
    let digest = repo.push_blob(b"shared").await;
    other.push_blob(b"shared").await;
    let blob = format!("blobs/{digest}");
    assert_eq!(repo.ask("DELETE", &blob).await.status, 202);
    assert_eq!(repo.get(&blob).await.status, 404);
    assert_eq!(repo.head(&blob).await.status, 404);
    assert_eq!(repo.ask("DELETE", &blob).await.status, 404);
    assert_eq!(other.get(&blob).await.body, b"shared");
    let absent = Digest::sha256(b"never");
    assert_eq!(other.ask("DELETE", &format!("blobs/{absent}")).await.status, 404);
}

#[tokio::test]
async fn a_manifest_is_not_deleted_as_a_blob() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let image = Image::small(1);
    let digest = repo.push("one", &image).await;
    assert_eq!(refusal(&repo.ask("DELETE", &format!("blobs/{digest}")).await), (400, "UNSUPPORTED".into()));
    // Nor does pushing its bytes as a blob make it one.
    repo.push_blob(&image.manifest).await;
    repo.assert_pulls("one", &image).await;
    assert_eq!(repo.head("manifests/one").await.header("content-type"), Some(MediaType::OciManifest.as_str()));
}
