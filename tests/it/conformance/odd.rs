//! The odd things that the specification's own suite pushes, each pulled again byte for byte.

use larder::oci::{Algorithm, Digest, MediaType};
use serde_json::json;

use super::{REPO, Registry};
use crate::support::client::Call;
use crate::support::image::Image;
use crate::support::pushing::{descriptor, index, manifest};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

#[tokio::test]
async fn a_blob_of_no_bytes() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, b"");
        let location = repo.begin().await;
        assert_eq!(repo.complete(&location, digest, b"").await.status, 201);
        let got = repo.get(&format!("blobs/{digest}")).await;
        assert_eq!((got.status, got.header("content-length"), got.complete), (200, Some("0"), true));
        let ranged = repo.send(Call::get(&repo.path(&format!("blobs/{digest}"))).header("Range", "bytes=0-")).await;
        assert_eq!(ranged.status, 416);
    }
    let digest = Digest::sha256(b"");
    let posted = repo.ask("POST", &format!("blobs/uploads/?digest={digest}")).await;
    assert_eq!(posted.status, 201);
}

#[tokio::test]
async fn an_empty_document_as_a_blob_and_as_an_artifacts_config() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let digest = repo.push_blob(b"{}").await;
    assert_eq!(digest.to_string(), "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let mut artifact = manifest(&empty, std::slice::from_ref(&empty));
    artifact["artifactType"] = json!("application/vnd.example");
    repo.push_manifest("artifact", &artifact).await;
    assert_eq!(repo.get("manifests/artifact").await.json(), artifact);
}

#[tokio::test]
async fn an_image_without_layers_and_an_index_without_images() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    repo.push_manifest("no-layers", &manifest(&descriptor(CONFIG, b"{}"), &[])).await;
    repo.push_manifest("no-images", &index(&[])).await;
    assert_eq!(repo.head("manifests/no-images").await.header("content-type"), Some(MediaType::OciIndex.as_str()));
}

#[tokio::test]
async fn an_index_of_images_and_an_index_of_indexes() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let images = Image::index(&[Image::small(1), Image::small(2)]);
    repo.push("multi", &images).await;
    repo.assert_pulls("multi", &images).await;
    let nested = index(&[descriptor(MediaType::OciIndex.as_str(), &images.manifest)]);
    repo.push_manifest("nested", &nested).await;
    assert_eq!(repo.get("manifests/nested").await.json(), nested);
}

#[tokio::test]
async fn dockers_own_types() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let image = Image::docker(3, &[100, 200]);
    repo.push("docker", &image).await;
    repo.assert_pulls("docker", &image).await;
}

#[tokio::test]
async fn inline_data_and_fields_that_nobody_knows() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let mut config = descriptor(CONFIG, b"{}");
    config["data"] = json!("e30=");
    config["org.example.unknown"] = json!({"a": [1, 2]});
    let mut image = manifest(&config, &[]);
    image["unknown"] = json!(["x", null, 1.5]);
    repo.push_manifest("odd", &image).await;
    assert_eq!(repo.get("manifests/odd").await.body, image.to_string().into_bytes());
}

#[tokio::test]
async fn an_image_whose_digests_are_all_sha512() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let of = |bytes: &[u8]| Digest::of(Algorithm::Sha512, bytes);
    for bytes in [b"{}".as_slice(), b"layer"] {
        let location = repo.begin().await;
        assert_eq!(repo.complete(&location, of(bytes), bytes).await.status, 201);
    }
    let long =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": of(bytes).to_string(), "size": bytes.len()});
    let image = manifest(&long(CONFIG, b"{}"), &[long("application/vnd.oci.image.layer.v1.tar", b"layer")]).to_string();
    let put = repo.put(of(image.as_bytes()), MediaType::OciManifest.as_str(), image.as_bytes()).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let top = index(&[long(MediaType::OciManifest.as_str(), image.as_bytes())]).to_string();
    let put = repo.put(of(top.as_bytes()), MediaType::OciIndex.as_str(), top.as_bytes()).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let got = repo.get(&format!("manifests/{}", of(top.as_bytes()))).await;
    assert_eq!(
        (got.header("docker-content-digest"), &got.body[..]),
        (Some(of(top.as_bytes()).to_string().as_str()), top.as_bytes())
    );
    assert_eq!(repo.ask("DELETE", &format!("manifests/{}", of(top.as_bytes()))).await.status, 202);
    assert_eq!(repo.get(&format!("manifests/{}", of(top.as_bytes()))).await.status, 404);
}

#[tokio::test]
async fn a_repository_whose_name_is_made_of_the_apis_own_words() {
    let registry = Registry::open().await;
    for name in ["blobs/uploads", "manifests/blobs/tags/list", "a/b/c/d/e/f/g/h", "uploads", &"x".repeat(255)] {
        let repo = registry.repo(name);
        let image = Image::small(9);
        repo.push("latest", &image).await;
        repo.assert_pulls("latest", &image).await;
    }
}
