//! What refers to a manifest.

use larder::oci::{Digest, MediaType};
use serde_json::{Value, json};

use super::{REPO, Registry};
use crate::support::pushing::{Remote, descriptor, index, manifest, refusal};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn artifact(subject: &Value, kind: Option<&str>, note: &str) -> Value {
    let mut artifact = manifest(&descriptor(EMPTY, b"{}"), &[descriptor("text/plain", b"{}")]);
    artifact["subject"] = subject.clone();
    artifact["annotations"] = json!({"note": note, "org.example.more": "yes"});
    if let Some(kind) = kind {
        artifact["artifactType"] = json!(kind);
    }
    artifact
}

async fn list(repo: &Remote, subject: &Value, query: &str) -> Vec<Value> {
    let answer = repo.get(&format!("referrers/{}{query}", subject["digest"].as_str().unwrap())).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(MediaType::OciIndex.as_str())));
    assert_eq!(
        (&answer.json()["schemaVersion"], &answer.json()["mediaType"]),
        (&json!(2), &json!(MediaType::OciIndex.as_str()))
    );
    answer.json()["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn there_is_always_a_list() {
    let registry = Registry::open().await;
    let repo = registry.repo("nothing/here");
    let subject = descriptor(MediaType::OciManifest.as_str(), b"unknown");
    assert!(list(&repo, &subject, "").await.is_empty());
    assert_eq!(refusal(&repo.get("referrers/sha256:bad").await), (400, "DIGEST_INVALID".into()));
}

#[tokio::test]
async fn a_referrer_is_listed_with_its_type_and_all_its_annotations() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let image = manifest(&descriptor("application/vnd.oci.image.config.v1+json", b"{}"), &[]);
    repo.push_manifest("v1", &image).await;
    let subject = descriptor(MediaType::OciManifest.as_str(), image.to_string().as_bytes());

    let mut index_with_subject = index(&[]);
    index_with_subject["subject"] = subject.clone();
    let referrers = [
        artifact(&subject, Some("application/vnd.example.sbom"), "sbom"),
        artifact(&subject, Some("application/vnd.example.signature"), "signature"),
        artifact(&subject, None, "by its config's type"),
        index_with_subject,
    ];
    for referrer in &referrers {
        let bytes = referrer.to_string().into_bytes();
        let media_type = referrer["mediaType"].as_str().unwrap();
        let put = repo.put(Digest::sha256(&bytes), media_type, &bytes).await;
        assert_eq!((put.status, put.header("oci-subject")), (201, subject["digest"].as_str()));
    }
    let found = list(&repo, &subject, "").await;
    assert_eq!(found.len(), referrers.len());
    for referrer in &referrers {
        let text = referrer.to_string();
        let digest = Digest::sha256(text.as_bytes()).to_string();
        let entry = found.iter().find(|entry| entry["digest"] == digest.as_str()).unwrap();
        assert_eq!((&entry["mediaType"], entry["size"].as_u64()), (&referrer["mediaType"], Some(text.len() as u64)));
        let of_config = if referrer["config"].is_null() { Value::Null } else { json!(EMPTY) };
        let kind = if referrer["artifactType"].is_null() { of_config } else { referrer["artifactType"].clone() };
        assert_eq!(entry["artifactType"], kind);
        assert_eq!(entry["annotations"], referrer["annotations"]);
    }

    let path = format!("referrers/{}?artifactType=application/vnd.example.sbom", subject["digest"].as_str().unwrap());
    let filtered = repo.get(&path).await;
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
    assert!(list(&repo, &subject, "?artifactType=other").await.is_empty());
    assert!(list(&registry.repo("other/app"), &subject, "").await.is_empty(), "only of this repository");

    // A deleted one is not listed any more.
    let gone = Digest::sha256(referrers[0].to_string().as_bytes());
    assert_eq!(repo.ask("DELETE", &format!("manifests/{gone}")).await.status, 202);
    assert_eq!(list(&repo, &subject, "").await.len(), referrers.len() - 1);
}

#[tokio::test]
async fn the_subject_may_come_later_or_never() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let image = manifest(&descriptor("application/vnd.oci.image.config.v1+json", b"{}"), &[]);
    let subject = descriptor(MediaType::OciManifest.as_str(), image.to_string().as_bytes());
    repo.push_manifest("early", &artifact(&subject, Some("x/y"), "early")).await;
    assert_eq!(list(&repo, &subject, "").await.len(), 1);
    repo.push_manifest("v1", &image).await;
    assert_eq!(list(&repo, &subject, "").await.len(), 1);
    assert_eq!(repo.get("manifests/early").await.status, 200);
}

#[tokio::test]
async fn what_clients_kept_under_the_fallback_tag_is_adopted() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let image = manifest(&descriptor("application/vnd.oci.image.config.v1+json", b"{}"), &[]);
    let digest = repo.push_manifest("v1", &image).await;
    let subject = descriptor(MediaType::OciManifest.as_str(), image.to_string().as_bytes());
    // Pushed by a client of old: without a subject, and listed in an index of the client's.
    let signature = manifest(&descriptor("application/vnd.example.signature", b"{}"), &[]);
    repo.push_manifest("sig", &signature).await;
    let mut entry = descriptor(MediaType::OciManifest.as_str(), signature.to_string().as_bytes());
    entry["artifactType"] = json!("application/vnd.example.signature");
    repo.push_manifest(digest.to_string().replace(':', "-"), &index(std::slice::from_ref(&entry))).await;
    assert_eq!(list(&repo, &subject, "").await, [entry]);
    repo.push_manifest("new", &artifact(&subject, Some("x/y"), "new")).await;
    assert_eq!(list(&repo, &subject, "").await.len(), 2);
    assert_eq!(list(&repo, &subject, "?artifactType=x/y").await.len(), 1);
}

#[tokio::test]
async fn a_list_that_is_longer_than_a_manifest_comes_in_pages() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    repo.push_blob(b"{}").await;
    let subject = descriptor(MediaType::OciManifest.as_str(), b"somewhere");
    for n in 0..3 {
        let note = format!("{n}{}", "x".repeat(2_000_000));
        repo.push_manifest(format!("sbom-{n}"), &artifact(&subject, Some("x/y"), &note)).await;
    }
    let (mut found, mut path) =
        (Vec::new(), repo.path(&format!("referrers/{}?artifactType=x/y", subject["digest"].as_str().unwrap())));
    loop {
        let page = repo.send(crate::support::client::Call::get(&path)).await;
        assert!(page.body.len() <= 4 << 20);
        found.extend(page.json()["manifests"].as_array().unwrap().clone());
        let Some(link) = page.header("link") else { break };
        path = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    }
    assert_eq!(found.len(), 3);
}
