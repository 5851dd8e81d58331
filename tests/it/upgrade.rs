//! Data directories of other versions: each layout that was ever released lies in tests/fixtures, made by the binary of its
//! day. This one serves them; one of a layout that it does not know it refuses, and touches nothing.

use std::fs;
use std::path::{Path, PathBuf};

use larder::oci::Digest;
use serde_json::Value;

use super::support::binary::{Binary, larder};
use super::support::client::Call;
use super::support::hub::Hub;
use super::support::image::{Image, noise};
use super::support::larder::{assert_sound, files};
use super::support::pushing::{Remote, with_digest};

const RULES: &str =
    "anonymous = \"push\"\n[[registry.repository]]\npattern = \"golden/**\"\npull = [\"*\"]\npush = [\"*\"]\n";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layout-1.tar.gz")
}

fn config(home: &Path, hub: &Hub) -> String {
    format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[registry]\n\
         listen = \"127.0.0.1:0\"\n{RULES}[[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        home.join("data"),
        hub.registry_url()
    )
}

/// What the fixture has: `library/alpine:latest` from upstream, `golden/ui:v1` with a referrer, and the first half of a blob
/// that someone is pushing to `golden/ui`. tests/fixtures/README.md says how it was made.
#[tokio::test]
#[ignore = "writes tests/fixtures/layout-1.tar.gz, which is made once for each layout"]
async fn the_fixture_is_made_of_this_versions_data() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let alpine = Image::index_with_attestations(&[Image::oci(901, &[70_000, 900])]);
    hub.push("library/alpine", "latest", &alpine);
    let larder = Binary::start(home.path(), &config(home.path(), &hub), "info");
    Remote::new(larder.mirror, "library/alpine").assert_pulls("latest", &alpine).await;
    let repo = Remote::new(larder.registry.unwrap(), "golden/ui");
    let ours = Image::index(&[Image::oci(902, &[66_000]), Image::small(903)]);
    repo.push("v1", &ours).await;
    let signature = Image::referrer(904, "test/signature", &ours);
    repo.push(&signature.digest().to_string(), &signature).await;
    let upload = repo.begin().await;
    assert_eq!(repo.patch(&upload, None, &half()).await.status, 202);
    larder.terminate();
    assert!(larder.ended().success());
    // Nothing secret belongs into a repository; a server that has no key makes one.
    fs::remove_file(home.path().join("data/token.key")).unwrap();
    let file = flate2::write::GzEncoder::new(fs::File::create(fixture()).unwrap(), flate2::Compression::best());
    let mut archive = tar::Builder::new(file);
    archive.append_dir_all("data", home.path().join("data")).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
}

fn blob() -> Vec<u8> {
    noise(905, 100_000).to_vec()
}

fn half() -> Vec<u8> {
    blob()[..50_000].to_vec()
}

fn unpacked() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(fixture()).unwrap()));
    // As if it had been used just now: what is half-way in does not wait for ever.
    archive.set_preserve_mtime(false);
    archive.unpack(home.path()).unwrap();
    home
}

/// Pulls all that is below a tag, whatever it is, by what manifests say; how many contents that was.
async fn pull_all(repo: &Remote, reference: &str) -> usize {
    let answer = repo.get(&format!("manifests/{reference}")).await;
    assert_eq!(answer.status, 200, "{reference}: {}", answer.text());
    let (manifest, mut pulled) = (answer.json(), 1);
    for child in manifest["manifests"].as_array().into_iter().flatten() {
        pulled += Box::pin(pull_all(repo, child["digest"].as_str().unwrap())).await;
    }
    for descriptor in manifest["layers"].as_array().into_iter().flatten().chain(manifest.get("config")) {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let answer = repo.get(&format!("blobs/{digest}")).await;
        assert!(answer.status == 200 && digest.matches(&answer.body), "{digest}: {}", answer.status);
        pulled += 1;
    }
    pulled
}

#[tokio::test]
async fn the_first_layout_is_served_with_all_that_is_in_it() {
    let (hub, home) = (Hub::plain().await, unpacked());
    assert_eq!(fs::read_to_string(home.path().join("data/VERSION")).unwrap(), "larder data directory, layout 1\n");
    let config = config(home.path(), &hub);
    // The upstream does not have it, and then is not even there: it comes from the disk, or not at all.
    hub.stop().await;
    let larder = Binary::start(home.path(), &config, "info");
    let (mirror, repo) =
        (Remote::new(larder.mirror, "library/alpine"), Remote::new(larder.registry.unwrap(), "golden/ui"));
    assert_eq!(pull_all(&mirror, "latest").await, 1 + 4 + 3, "an index of an image and its attestation");
    assert_eq!(pull_all(&repo, "v1").await, 1 + 3 + 4);
    let index = Digest::sha256(&repo.get("manifests/v1").await.body);
    let referrers: Value = repo.get(&format!("referrers/{index}")).await.json();
    assert_eq!(referrers["manifests"][0]["artifactType"], "test/signature");
    assert_eq!(pull_all(&repo, referrers["manifests"][0]["digest"].as_str().unwrap()).await, 3);

    let uploads = files(&home.path().join("data/uploads"));
    let (upload, came) = uploads.iter().find(|(path, _)| path.extension().is_none()).unwrap();
    let location = repo.path(&format!("blobs/uploads/{}", upload.file_name().unwrap().to_str().unwrap()));
    assert_eq!(*came, half());
    let digest = Digest::sha256(&blob());
    let rest = Call::new("PUT", &with_digest(&location, digest))
        .header("Content-Range", "50000-99999")
        .body(&blob()[50_000..]);
    let answer = repo.send(rest).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(repo.get(&format!("blobs/{digest}")).await.body, blob());
    drop(larder);
    assert_sound(&home.path().join("data"));
    let quarantined = files(&home.path().join("data/quarantine"));
    assert!(quarantined.is_empty(), "{quarantined:?}");
}

#[tokio::test]
async fn a_directory_of_a_newer_layout_is_refused_by_every_command_and_left_as_it_is() {
    let (hub, home) = (Hub::plain().await, unpacked());
    let file = home.path().join("larder.toml");
    // Its admin address is a port where nobody listens, for the commands that would rather ask a running server.
    let config =
        config(home.path(), &hub).replace("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"127.0.0.1:1\"");
    fs::write(&file, config.replace("127.0.0.1:1\"", "127.0.0.1:0\"")).unwrap();
    fs::write(home.path().join("data/VERSION"), "larder data directory, layout 2\n").unwrap();
    let before = files(&home.path().join("data"));
    let backup = home.path().join("backup");
    let run = |arguments: &[&str]| larder().args(arguments).arg("--config").arg(&file).output().unwrap();
    let refused = |output: std::process::Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("layout 2") && text.contains("use the version that wrote it"), "{text}");
    };
    refused(run(&["serve"]));
    fs::write(&file, config).unwrap();
    refused(run(&["scrub"]));
    refused(run(&["backup", backup.to_str().unwrap()]));
    assert!(!backup.join("index.json").exists());
    assert_eq!(files(&home.path().join("data")), before);
}
