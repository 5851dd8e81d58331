//! `larder export`, through the built program: the archive is an OCI image layout, whole, and the same each time.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};

use larder::oci::Digest;
use serde_json::{Value, json};

use crate::support::binary::{larder, tries_other_programs};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;

async fn export(larder_: &Larder, arguments: &[&str]) -> Output {
    let mut command = larder();
    command.args(["export", "--mirror", &larder_.mirror().to_string()]).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, mut content) = (entry.path().unwrap().to_str().unwrap().to_owned(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        assert_eq!(found.insert(path, content), None, "each once");
    }
    found
}

fn blob(digest: impl ToString) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

fn assert_holds(entries: &BTreeMap<String, Vec<u8>>, image: &Image) {
    assert_eq!(entries[&blob(image.digest())], image.manifest);
    for (digest, bytes) in image.blob_digests().iter().zip(&image.blobs) {
        assert_eq!(entries[&blob(digest)], *bytes);
    }
    image.children.iter().for_each(|child| assert_holds(entries, child));
}

#[tokio::test]
async fn an_archive_has_the_whole_image_and_says_what_it_is() {
    let hub = Hub::plain().await;
    let image = Image::index_with_attestations(&[Image::oci(1, &[300_000, 20]), Image::small(2)]);
    hub.push("library/python", "3.11", &image);
    let larder = Larder::mirroring(&hub).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("python.tar");
    let done = export(&larder, &["docker.io/library/python:3.11", file.to_str().unwrap()]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let archive = std::fs::read(&file).unwrap();
    let found = entries(&archive);
    assert_holds(&found, &image);
    let index: Value = serde_json::from_slice(&found["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.digest().to_string());
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "3.11");
    let loadable: Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
    let amd64 = &image.children[0];
    assert_eq!(
        loadable,
        json!([{
            "Config": blob(amd64.blob_digests()[0]),
            "RepoTags": ["docker.io/library/python:3.11"],
            "Layers": amd64.blob_digests()[1..].iter().map(blob).collect::<Vec<_>>(),
        }])
    );
    // From the cache alone, to standard output, and the same to the last byte.
    larder.until_idle().await;
    hub.stop().await;
    let again = export(&larder, &["docker.io/library/python:3.11", "-"]).await;
    assert!(again.status.success());
    assert!(again.stdout == archive);
}

#[tokio::test]
async fn platforms_are_picked_and_a_failure_leaves_no_file() {
    let hub = Hub::plain().await;
    let images = [Image::small(1), Image::small(2), Image::small(3)];
    let image = Image::index(&images);
    hub.push("org/app", "v1", &image);
    let larder = Larder::mirroring(&hub).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("app.tar");
    let path = file.to_str().unwrap();
    let none = export(&larder, &["org/app:v1", path, "--platform", "linux/mips"]).await;
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8(none.stderr).unwrap();
    assert_eq!(said, "larder: org/app:v1: has no linux/mips; it has linux/amd64, linux/arm64, linux/s390x\n");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);

    let one = export(&larder, &["org/app:v1", path, "--platform", "linux/arm64"]).await;
    assert!(one.status.success());
    let found = entries(&std::fs::read(&file).unwrap());
    assert_holds(&found, &images[1]);
    assert!(!found.contains_key(&blob(images[0].digest())) && !found.contains_key(&blob(image.digest())));

    let platforms = ["--platform", "linux/arm64", "--platform", "linux/s390x"];
    let two = export(&larder, &[&["org/app:v1", path], &platforms[..]].concat()).await;
    assert!(two.status.success());
    let found = entries(&std::fs::read(&file).unwrap());
    let index: Value = serde_json::from_slice(&found["index.json"]).unwrap();
    let root = index["manifests"][0]["digest"].as_str().unwrap();
    let content = &found[&blob(root)];
    assert_eq!(Digest::sha256(content).to_string(), root);
    let listed: Value = serde_json::from_slice(content).unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 2);
    assert_holds(&found, &images[1]);
    assert_holds(&found, &images[2]);
}

#[tokio::test]
async fn skopeo_reads_the_archive() {
    if !tries_other_programs() {
        return;
    }
    let hub = Hub::plain().await;
    let image = Image::index(&[Image::unpackable(1), Image::unpackable(2)]);
    hub.push("org/app", "v1", &image);
    let larder = Larder::mirroring(&hub).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("app.tar");
    assert!(export(&larder, &["org/app:v1", file.to_str().unwrap()]).await.status.success());
    let target = home.path().join("copy");
    let (from, to) = (format!("oci-archive:{}", file.display()), format!("dir:{}", target.display()));
    let policy = ["--insecure-policy", "copy", "--all", "--preserve-digests", &from, &to].map(str::to_owned);
    let copied =
        tokio::task::spawn_blocking(move || Command::new("skopeo").args(policy).output().unwrap()).await.unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert_eq!(std::fs::read(Path::new(&target).join("manifest.json")).unwrap(), image.manifest);
    for digest in image.children.iter().flat_map(Image::blob_digests) {
        assert!(target.join(digest.hex()).exists(), "{digest}");
    }
}
