//! Pushing and pulling manifests.

use larder::oci::{Algorithm, Digest, MediaType};
use serde_json::json;

use super::{REPO, Registry};
use crate::support::client::Call;
use crate::support::image::Image;
use crate::support::pushing::{descriptor, index, manifest, refusal};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[tokio::test]
async fn a_manifest_is_kept_byte_for_byte_under_its_tag_and_its_digest() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let config = repo.push_blob(b"{}").await;
    // Odd spacing and fields that nobody knows.
    let text = format!(
        "{{\n\t\"schemaVersion\" : 2,  \"unknown\": [1, {{\"x\": null}}],\r\n \"mediaType\":\"{}\",\"config\":\
         {{\"size\":2,\"digest\":\"{config}\",\"mediaType\":\"{CONFIG}\",\"extra\":true}},\"layers\":[]}}\n",
        MediaType::OciManifest
    );
    let digest = Digest::sha256(text.as_bytes());
    let put = repo.put("v1", &format!("{}; charset=utf-8", MediaType::OciManifest), text.as_bytes()).await;
    assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(digest.to_string().as_str())));
    assert_eq!((put.header("oci-subject"), put.header("oci-tag")), (None, None));
    let location = put.header("location").unwrap().to_owned();
    for path in [location, repo.path("manifests/v1"), repo.path(&format!("manifests/{digest}"))] {
        for method in ["GET", "HEAD"] {
            let got = repo.send(Call::new(method, &path)).await;
            assert_eq!((got.status, got.header("content-type")), (200, Some(MediaType::OciManifest.as_str())));
            assert_eq!(got.header("docker-content-digest"), Some(digest.to_string().as_str()));
            assert_eq!(got.header("content-length"), Some(text.len().to_string().as_str()));
            assert_eq!(got.body, if method == "GET" { text.as_bytes() } else { b"" });
        }
    }
}

#[tokio::test]
async fn a_tag_moves_and_what_it_meant_stays_pullable() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let (old, new) = (Image::small(1), Image::small(2));
    let was = repo.push("latest", &old).await;
    let is = repo.push("latest", &new).await;
    assert_ne!(was, is);
    repo.assert_pulls("latest", &new).await;
    repo.assert_pulls(was, &old).await;
    let by_tag = repo.get("manifests/latest").await;
    assert_eq!(by_tag.header("cache-control"), Some("no-cache"));
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_says() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes = index(&[]).to_string().into_bytes();
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, &bytes);
        let put = repo.put(digest, MediaType::OciIndex.as_str(), &bytes).await;
        assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(digest.to_string().as_str())));
        assert_eq!(repo.get(&format!("manifests/{digest}")).await.body, bytes);
        let wrong = Digest::of(algorithm, b"other");
        let put = repo.put(wrong, MediaType::OciIndex.as_str(), &bytes).await;
        assert_eq!(refusal(&put), (400, "DIGEST_INVALID".into()));
        assert_eq!(repo.get(&format!("manifests/{wrong}")).await.status, 404);
    }
    for malformed in ["sha256:baddigeststring", "sha256:"] {
        assert_eq!(repo.put(malformed, MediaType::OciIndex.as_str(), &bytes).await.status, 400);
        assert_eq!(repo.get(&format!("manifests/{malformed}")).await.status, 400);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_404_with_its_code() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    assert_eq!(refusal(&repo.get("manifests/latest").await), (404, "NAME_UNKNOWN".into()));
    assert_eq!(refusal(&repo.get("tags/list").await), (404, "NAME_UNKNOWN".into()));
    let blob = repo.push_blob(b"x").await;
    let absent = Digest::sha256(b"absent");
    assert_eq!(refusal(&repo.get("manifests/latest").await), (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(refusal(&repo.get(&format!("manifests/{absent}")).await), (404, "MANIFEST_UNKNOWN".into()));
    assert_eq!(refusal(&repo.get(&format!("blobs/{absent}")).await), (404, "BLOB_UNKNOWN".into()));
    assert_eq!(
        refusal(&repo.get(&format!("manifests/{blob}")).await),
        (404, "MANIFEST_UNKNOWN".into()),
        "a blob is none"
    );
    assert_eq!(repo.get("tags/list").await.json(), json!({"name": REPO, "tags": []}), "never null");
}

#[tokio::test]
async fn what_a_manifest_names_has_to_be_here() {
    let registry = Registry::open().await;
    let (repo, other) = (registry.repo(REPO), registry.repo("other/app"));
    let (config, layer) = (descriptor(CONFIG, b"{}"), descriptor(LAYER, b"layer"));
    let image = manifest(&config, std::slice::from_ref(&layer)).to_string();
    let put = || repo.put("v1", MediaType::OciManifest.as_str(), image.as_bytes());
    assert_eq!(refusal(&put().await), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    repo.push_blob(b"{}").await;
    // That another repository has it is no help.
    other.push_blob(b"layer").await;
    let answer = put().await;
    assert_eq!(refusal(&answer), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    assert!(answer.text().contains(&Digest::sha256(b"layer").to_string()), "{}", answer.text());
    assert_eq!(repo.get("manifests/v1").await.status, 404);
    repo.push_blob(b"layer").await;
    assert_eq!(put().await.status, 201);

    let child = descriptor(MediaType::OciManifest.as_str(), b"not here");
    let list = index(&[child]).to_string();
    let put = repo.put("all", MediaType::OciIndex.as_str(), list.as_bytes()).await;
    assert_eq!(refusal(&put), (404, "MANIFEST_BLOB_UNKNOWN".into()));
}

#[tokio::test]
async fn layers_that_may_not_be_distributed_are_never_required() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let layers = [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ]
    .map(|kind| descriptor(kind, kind.as_bytes()));
    repo.push_manifest("windows", &manifest(&descriptor(CONFIG, b"{}"), &layers)).await;
    assert_eq!(repo.get("manifests/windows").await.status, 200);
}

#[tokio::test]
async fn four_mebibytes_are_taken_and_no_more() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let of_length = |length: usize| {
        let mut image = manifest(&descriptor(CONFIG, b"{}"), &[]);
        image["annotations"] = json!({"padding": ""});
        let padding = length - image.to_string().len();
        image["annotations"] = json!({"padding": "x".repeat(padding)});
        image.to_string().into_bytes()
    };
    let most = of_length(4 << 20);
    assert_eq!(repo.put("large", MediaType::OciManifest.as_str(), &most).await.status, 201);
    assert_eq!(repo.get("manifests/large").await.body, most);
    let more = repo.put("larger", MediaType::OciManifest.as_str(), &of_length((4 << 20) + 1)).await;
    assert_eq!(refusal(&more), (413, "SIZE_INVALID".into()));
    assert_eq!(repo.get("manifests/larger").await.status, 404);
    // Nor if nobody says how long it will be.
    let mut chunked = format!("{:x}\r\n", (4 << 20) + 1).into_bytes();
    chunked.extend_from_slice(&of_length((4 << 20) + 1));
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let put = Call::new("PUT", &repo.path("manifests/larger")).header("Transfer-Encoding", "chunked").body(&chunked);
    assert_eq!(refusal(&repo.send(put).await), (413, "SIZE_INVALID".into()));
}

#[tokio::test]
async fn what_is_no_manifest_or_two_things_at_once_is_refused() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let config = descriptor(CONFIG, b"{}");
    let (image, list) = (MediaType::OciManifest.as_str(), MediaType::OciIndex.as_str());
    let good = manifest(&config, &[]).to_string();
    let deep = format!("{{\"schemaVersion\":2,\"config\":{}", "[".repeat(100_000));
    for (media_type, bytes) in [
        (image, "not json".to_owned()),
        (image, "{}".to_owned()),
        (image, deep),
        (list, good.clone()),
        ("application/json", good.clone()),
        (MediaType::DockerManifest.as_str(), good.clone()),
        (image, json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}).to_string()),
        (image, json!({"schemaVersion": 1, "fsLayers": []}).to_string()),
    ] {
        let answer = repo.put("bad", media_type, bytes.as_bytes()).await;
        assert_eq!(
            refusal(&answer),
            (400, "MANIFEST_INVALID".into()),
            "{media_type} {}",
            &bytes[..bytes.len().min(80)]
        );
    }
    // Without a type of its own the request's word counts.
    let untyped = json!({"schemaVersion": 2, "config": config, "layers": []}).to_string();
    for media_type in [image, MediaType::DockerManifest.as_str()] {
        assert_eq!(repo.put("untyped", media_type, untyped.as_bytes()).await.status, 201);
        assert_eq!(repo.head("manifests/untyped").await.header("content-type"), Some(media_type));
    }
    let path = repo.path("manifests/unsaid");
    assert_eq!(repo.send(Call::new("PUT", &path).body(good.as_bytes())).await.status, 201, "it says itself what it is");
}

#[tokio::test]
async fn a_manifest_pushed_by_digest_gets_tags_by_parameter() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes = index(&[]).to_string().into_bytes();
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, &bytes);
        let tags: Vec<String> = (0..12).map(|n| format!("{}-{n}", algorithm.as_str())).collect();
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let put = repo.put(format!("{digest}?{}", query.join("&")), MediaType::OciIndex.as_str(), &bytes).await;
        assert_eq!((put.status, put.header("oci-tag")), (201, Some(tags.join(", ").as_str())));
        for tag in &tags {
            let got = repo.get(&format!("manifests/{tag}")).await;
            assert_eq!(got.header("docker-content-digest"), Some(digest.to_string().as_str()));
        }
    }
    // One that is pushed by a tag gets the others, too.
    let put = repo.put("first?tag=second&tag=third", MediaType::OciIndex.as_str(), &bytes).await;
    assert_eq!((put.status, put.header("oci-tag")), (201, Some("second, third")));
    for tag in ["first", "second", "third"] {
        assert_eq!(repo.get(&format!("manifests/{tag}")).await.body, bytes, "{tag}");
    }
    let digest = Digest::sha256(&bytes);
    let bad = repo.put(format!("{digest}?tag=good&tag=../bad"), MediaType::OciIndex.as_str(), &bytes).await;
    assert_eq!(bad.status, 400);
    assert_eq!(repo.get("manifests/good").await.status, 404, "all or none");
    let many = repo.put(format!("{digest}?{}", "tag=a&".repeat(101)), MediaType::OciIndex.as_str(), &bytes).await;
    assert_eq!(many.status, 414);
}

#[tokio::test]
async fn methods_that_an_endpoint_does_not_have_are_405() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let digest = Digest::sha256(b"x");
    for (method, path, allow) in [
        ("POST", "/v2/".to_owned(), "GET, HEAD"),
        ("DELETE", "/v2/_catalog".to_owned(), "GET, HEAD"),
        ("POST", repo.path("manifests/latest"), "GET, HEAD, PUT, DELETE"),
        ("PUT", repo.path(&format!("blobs/{digest}")), "GET, HEAD, DELETE"),
        ("PUT", repo.path("tags/list"), "GET, HEAD"),
        ("DELETE", repo.path(&format!("referrers/{digest}")), "GET, HEAD"),
        ("GET", repo.path("blobs/uploads/"), "POST"),
    ] {
        let answer = repo.send(Call::new(method, &path)).await;
        assert_eq!(refusal(&answer), (405, "UNSUPPORTED".into()), "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow));
    }
}
