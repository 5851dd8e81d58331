//! Backups: what is hosted goes into an OCI image layout while clients push, and comes back elsewhere byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use larder::oci::{Algorithm, Digest, MediaType};
use serde_json::Value;

use super::support::binary::{beside, larder};
use super::support::client::Call;
use super::support::hub::Hub;
use super::support::image::{Image, noise};
use super::support::larder::{Larder, assert_sound, files};
use super::support::pushing::{Remote, descriptor, manifest};

const OPEN: &str = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]\ndelete = [\"*\"]";

/// Where backups and data directories of a test are, and the configuration that names them.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { home: tempfile::tempdir().unwrap() }
    }

    fn backup(&self) -> PathBuf {
        self.home.path().join("backup")
    }

    /// A configuration whose server does not run: nobody listens at its admin address.
    fn config(&self, data: &Path) -> PathBuf {
        let file = self.home.path().join("larder.toml");
        let text = format!(
            "data_dir = {data:?}\n[admin]\nlisten = \"127.0.0.1:1\"\n[registry]\nlisten = \"127.0.0.1:0\"\n{OPEN}\n"
        );
        fs::write(&file, text).unwrap();
        file
    }

    fn run(&self, data: &Path, arguments: &[&str]) -> Output {
        let (command, options) = arguments.split_first().unwrap();
        let mut larder = larder();
        larder.arg(command).arg(self.backup()).arg("--json").args(options).arg("--config").arg(self.config(data));
        larder.output().unwrap()
    }

    /// The same, which has to succeed; its report.
    fn report(&self, data: &Path, arguments: &[&str]) -> Value {
        let output = self.run(data, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same, which has to fail; its report, if there is one, and what it says.
    fn fails(&self, data: &Path, arguments: &[&str]) -> (Value, String) {
        let output = self.run(data, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        (serde_json::from_slice(&output.stdout).unwrap_or_default(), text)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.backup().join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A server that is made of what a backup has.
async fn restored(hub: &Hub, place: &Place) -> Larder {
    let mut larder = Larder::hosting(hub, OPEN).await;
    larder.stop().await;
    place.report(&larder.data(), &["restore"]);
    larder.start().await;
    larder
}

async fn referrers(repo: &Remote, subject: &Digest) -> Vec<Value> {
    repo.get(&format!("referrers/{subject}")).await.json()["manifests"].as_array().unwrap().clone()
}

/// A blob and a manifest with digests of SHA-512.
async fn push_sha512(repo: &Remote) -> (Digest, Vec<u8>, Digest, Vec<u8>) {
    let layer = noise(77, 90_000).to_vec();
    let layer_digest = Digest::of(Algorithm::Sha512, &layer);
    let location = repo.begin().await;
    assert_eq!(repo.complete(&location, layer_digest, &layer).await.status, 201);
    repo.push_blob(b"{}").await;
    let mut entry = descriptor("application/octet-stream", &layer);
    entry["digest"] = layer_digest.to_string().into();
    let config = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let bytes = manifest(&config, &[entry]).to_string().into_bytes();
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let put = repo.put(digest, MediaType::OciManifest.as_str(), &bytes).await;
    assert_eq!(put.status, 201, "{}", put.text());
    (layer_digest, layer, digest, bytes)
}

#[tokio::test]
async fn everything_that_was_pushed_comes_back_elsewhere() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let (golden, team) = (Remote::new(larder.registry(), "golden/ui"), Remote::new(larder.registry(), "team/a__b"));
    let list = Image::index_with_attestations(&[Image::oci(1, &[200_000, 70_000]), Image::small(2)]);
    let docker = Image::docker_list(&[Image::docker(3, &[5_000]), Image::docker(4, &[6_000])]);
    let (untagged, shared) = (Image::small(5), Image::oci(1, &[200_000, 70_000]));
    golden.push("v1", &list).await;
    golden.push("latest", &list).await;
    golden.push("docker", &docker).await;
    let untagged_digest = golden.push(&untagged.digest().to_string(), &untagged).await;
    team.push("v1", &shared).await;
    let signature = Image::referrer(6, "test/signature", &list);
    golden.push(&signature.digest().to_string(), &signature).await;
    let on_top = Image::referrer(7, "test/attestation", &signature);
    golden.push("tagged-referrer", &on_top).await;
    let (layer_digest, layer, digest, bytes) = push_sha512(&team).await;
    let orphan = golden.push_blob(b"no manifest names this").await;
    let listed = referrers(&golden, &list.digest()).await;
    assert_eq!(listed.len(), 1);
    larder.stop().await;

    let report = place.report(&larder.data(), &["backup"]);
    assert_eq!((&report["repositories"], &report["tags"]), (&2.into(), &5.into()), "{report}");
    assert!(!place.blob(&orphan).exists());
    let rules = fs::read_to_string(place.backup().join("larder/registry.toml")).unwrap();
    assert!(rules.contains("[[registry.repository]]") && rules.contains("pattern = \"**\""), "{rules}");

    let other = restored(&hub, &place).await;
    let golden = Remote::new(other.registry(), "golden/ui");
    let team = Remote::new(other.registry(), "team/a__b");
    golden.assert_pulls("v1", &list).await;
    golden.assert_pulls("latest", &list).await;
    golden.assert_pulls("docker", &docker).await;
    golden.assert_pulls(untagged_digest, &untagged).await;
    golden.assert_pulls(signature.digest(), &signature).await;
    golden.assert_pulls("tagged-referrer", &on_top).await;
    team.assert_pulls("v1", &shared).await;
    assert_eq!(referrers(&golden, &list.digest()).await, listed);
    assert_eq!(referrers(&golden, &signature.digest()).await.len(), 1);
    assert_eq!(golden.get("tags/list").await.json()["tags"].as_array().unwrap().len(), 4);
    assert_eq!(team.get(&format!("manifests/{digest}")).await.body, bytes);
    assert_eq!(team.get(&format!("blobs/{layer_digest}")).await.body, layer);
    assert_eq!(team.head(&format!("blobs/{}", docker.children[0].layer(0).0)).await.status, 404, "a link is a right");
    assert_sound(&other.data());
}

#[tokio::test]
async fn a_second_backup_copies_what_is_new_and_prune_removes_what_is_not_needed() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let (first, second) = (Image::oci(11, &[300_000, 40_000]), Image::oci(12, &[50_000]));
    Remote::new(larder.registry(), "golden/ui").push("v1", &first).await;
    larder.stop().await;
    let length = |image: &Image| image.manifest.len() + image.blobs.iter().map(|blob| blob.len()).sum::<usize>();
    let report = place.report(&larder.data(), &["backup"]);
    assert_eq!(report["copied_bytes"], length(&first), "{report}");
    let report = place.report(&larder.data(), &["backup"]);
    assert_eq!((&report["copied_blobs"], &report["copied_bytes"]), (&0.into(), &0.into()));

    larder.start().await;
    let repo = Remote::new(larder.registry(), "golden/ui");
    repo.push("v2", &second).await;
    assert_eq!(repo.ask("DELETE", &format!("manifests/{}", first.digest())).await.status, 202);
    larder.stop().await;
    let report = place.report(&larder.data(), &["backup"]);
    assert_eq!(report["copied_bytes"], length(&second), "{report}");
    assert!(place.blob(&first.layer(0).0).exists(), "it is removed when that is asked for");
    let report = place.report(&larder.data(), &["backup", "--prune"]);
    assert_eq!((&report["copied_bytes"], &report["removed_bytes"]), (&0.into(), &length(&first).into()), "{report}");
    assert!(!place.blob(&first.layer(0).0).exists());

    // Of the same length, and wrong: only who looks sees it. What is shorter is seen by everyone.
    let layer = second.layer(0).0;
    flip(&place.blob(&layer), 49_999);
    assert_eq!(place.report(&larder.data(), &["backup"])["copied_blobs"], 0);
    assert_eq!(place.report(&larder.data(), &["backup", "--verify"])["copied_bytes"], 50_000);
    fs::write(place.blob(&layer), "short").unwrap();
    assert_eq!(place.report(&larder.data(), &["backup"])["copied_bytes"], 50_000);
    restored(&hub, &place).await;
}

#[tokio::test]
async fn of_a_damaged_image_nothing_is_restored_and_the_rest_is() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let images = [Image::oci(21, &[80_000]), Image::small(22), Image::index(&[Image::small(23), Image::small(24)])];
    let whole = Image::small(25);
    let repo = Remote::new(larder.registry(), "golden/ui");
    for (n, image) in images.iter().enumerate() {
        repo.push(&format!("bad{n}"), image).await;
    }
    repo.push("good", &whole).await;
    larder.stop().await;
    place.report(&larder.data(), &["backup"]);
    flip(&place.blob(&images[0].layer(0).0), 70_000);
    fs::remove_file(place.blob(&images[1].digest())).unwrap();
    fs::remove_file(place.blob(&images[2].children[1].layer(1).0)).unwrap();

    let mut other = Larder::hosting(&hub, OPEN).await;
    other.stop().await;
    let (report, text) = place.fails(&other.data(), &["restore"]);
    for (n, wrong) in [images[0].layer(0).0, images[1].digest(), images[2].children[1].layer(1).0].iter().enumerate() {
        assert!(text.contains(&format!("golden/ui bad{n}")) && text.contains(&wrong.to_string()), "{text}");
    }
    assert_eq!(report["tags"], 1, "{report}");
    other.start().await;
    let repo = Remote::new(other.registry(), "golden/ui");
    repo.assert_pulls("good", &whole).await;
    for (n, image) in images.iter().enumerate() {
        assert_eq!(repo.head(&format!("manifests/bad{n}")).await.status, 404);
        assert_eq!(repo.head(&format!("manifests/{}", image.digest())).await.status, 404);
    }
    assert_eq!(repo.head(&format!("manifests/{}", images[2].children[1].digest())).await.status, 404);
    repo.assert_pulls(images[2].children[0].digest(), &images[2].children[0]).await;
    other.stop().await;

    // The server that was backed up still has it all: the next backup heals the first one.
    place.report(&larder.data(), &["backup", "--verify"]);
    place.report(&other.data(), &["restore"]);
    other.start().await;
    let repo = Remote::new(other.registry(), "golden/ui");
    for (n, image) in images.iter().enumerate() {
        repo.assert_pulls(format!("bad{n}"), image).await;
    }
    assert_sound(&other.data());
}

#[tokio::test]
async fn a_tag_that_means_something_else_is_kept_unless_force_is_said() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let (old, new, beside) = (Image::small(31), Image::small(32), Image::small(33));
    Remote::new(larder.registry(), "golden/ui").push("v1", &old).await;
    Remote::new(larder.registry(), "golden/other").push("v1", &beside).await;
    larder.stop().await;
    place.report(&larder.data(), &["backup"]);

    let mut other = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(other.registry(), "golden/ui");
    repo.push("v1", &new).await;
    repo.push("v2", &new).await;
    // A running server has its directory for itself.
    let (_, text) = place.fails(&other.data(), &["restore"]);
    assert!(text.contains("in use"), "{text}");
    other.stop().await;
    let (_, text) = place.fails(&other.data(), &["restore"]);
    assert!(text.contains("golden/ui:v1 means something else") && text.contains("--force"), "{text}");
    other.start().await;
    Remote::new(other.registry(), "golden/ui").assert_pulls("v1", &new).await;
    assert_eq!(
        Remote::new(other.registry(), "golden/other").get("tags/list").await.status,
        404,
        "nothing was restored"
    );
    other.stop().await;
    place.report(&other.data(), &["restore", "--force"]);
    place.report(&other.data(), &["restore"]);
    other.start().await;
    let repo = Remote::new(other.registry(), "golden/ui");
    repo.assert_pulls("v1", &old).await;
    repo.assert_pulls("v2", &new).await;
    Remote::new(other.registry(), "golden/other").assert_pulls("v1", &beside).await;
}

#[tokio::test]
async fn what_is_lost_on_the_server_is_named_and_does_not_keep_the_rest_from_being_backed_up() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let (rotten, whole, before) = (Image::oci(41, &[200_000]), Image::small(42), Image::oci(43, &[90_000]));
    let repo = Remote::new(larder.registry(), "golden/ui");
    repo.push("before", &before).await;
    larder.stop().await;
    place.report(&larder.data(), &["backup"]);
    larder.start().await;
    let repo = Remote::new(larder.registry(), "golden/ui");
    repo.push("rotten", &Image::index(&[rotten.clone(), Image::small(44)])).await;
    repo.push("whole", &whole).await;
    larder.stop().await;
    let stored = |digest: &Digest| larder.data().join(format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex()));
    flip(&stored(&rotten.layer(0).0), 150_000);
    flip(&stored(&before.layer(0).0), 50_000);

    let (report, text) = place.fails(&larder.data(), &["backup", "--prune"]);
    assert!(text.contains("golden/ui rotten: ") && text.contains(&rotten.layer(0).0.to_string()), "{text}");
    assert_eq!(report["damaged"].as_array().unwrap().len(), 2, "the index and its image: {report}");
    let other = restored(&hub, &place).await;
    let repo = Remote::new(other.registry(), "golden/ui");
    repo.assert_pulls("whole", &whole).await;
    repo.assert_pulls("before", &before).await;
    assert_eq!(repo.head("manifests/rotten").await.status, 404);
}

#[tokio::test]
async fn what_was_deleted_on_purpose_is_not_missed() {
    let (hub, place) = (Hub::plain().await, Place::new());
    let mut larder = Larder::hosting(&hub, OPEN).await;
    let repo = Remote::new(larder.registry(), "golden/ui");
    let list = Image::index(&[Image::small(51), Image::small(52)]);
    repo.push("v1", &list).await;
    assert_eq!(repo.ask("DELETE", &format!("manifests/{}", list.children[1].digest())).await.status, 202);
    larder.stop().await;
    let report = place.report(&larder.data(), &["backup"]);
    assert_eq!((&report["incomplete"], &report["manifests"]), (&1.into(), &2.into()), "{report}");
    let other = restored(&hub, &place).await;
    let repo = Remote::new(other.registry(), "golden/ui");
    assert_eq!(repo.get("manifests/v1").await.body, list.manifest);
    repo.assert_pulls(list.children[0].digest(), &list.children[0]).await;
    assert_eq!(repo.head(&format!("manifests/{}", list.children[1].digest())).await.status, 404);
}

#[tokio::test]
async fn only_a_backup_is_written_over_or_restored_from() {
    let place = Place::new();
    let data = place.home.path().join("data");
    let (_, text) = place.fails(&data, &["backup"]);
    assert!(text.contains("no data directory"), "{text}");
    assert!(!data.exists() && !place.backup().join("index.json").exists());
    let (_, text) = place.fails(&data, &["restore"]);
    assert!(text.contains("no OCI image layout") && !data.exists(), "{text}");

    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("VERSION"), "larder data directory, layout 1\n").unwrap();
    let theirs = r#"{"schemaVersion":2,"manifests":[]}"#;
    fs::write(place.backup().join("index.json"), theirs).unwrap();
    fs::write(place.backup().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for command in ["backup", "restore"] {
        let (_, text) = place.fails(&data, &[command]);
        assert!(text.contains("no backup of Larder"), "{text}");
    }
    let newer = r#"{"schemaVersion":2,"manifests":[],"annotations":{"dev.larder.backup":"9"}}"#;
    fs::write(place.backup().join("index.json"), newer).unwrap();
    for command in ["backup", "restore"] {
        let (_, text) = place.fails(&data, &[command]);
        assert!(text.contains("format 9"), "{text}");
    }
    assert_eq!(fs::read_to_string(place.backup().join("index.json")).unwrap(), newer);
}

#[tokio::test]
async fn accounts_are_kept_when_asked_for_and_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (hub, place) = (Hub::plain().await, Place::new());
    let htpasswd = place.home.path().join("htpasswd");
    fs::write(&htpasswd, "ann:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n").unwrap();
    let mut larder = Larder::hosting(&hub, OPEN).await;
    larder.stop().await;
    let file = place.config(&larder.data());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[registry]\n", &format!("[registry]\nhtpasswd = {htpasswd:?}\n"))).unwrap();
    let run = |options: &[&str]| {
        let mut command = super::support::binary::larder();
        let output = command.arg("backup").arg(place.backup()).arg("--config").arg(&file).args(options).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[]);
    let inside = |hash: &str| {
        files(&place.backup())
            .iter()
            .any(|(_, content)| content.windows(hash.len()).any(|part| part == hash.as_bytes()))
    };
    assert!(!inside("$2y$"), "hashes leave only when asked for");
    run(&["--with-accounts"]);
    let kept = place.backup().join("larder/htpasswd");
    assert_eq!(fs::read(&kept).unwrap(), fs::read(&htpasswd).unwrap());
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
}

async fn pin(larder: &Larder, pattern: &str) {
    let wish = format!("{{\"pattern\": \"{pattern}\"}}");
    let wish = Call::new("POST", "/api/pins").header("Content-Type", "application/json").body(wish.as_bytes());
    assert_eq!(wish.send(larder.admin()).await.status, 200);
}

async fn pins(larder: &Larder) -> Vec<String> {
    let pins = Call::get("/api/pins").send(larder.admin()).await.json();
    pins.as_array().unwrap().iter().map(|pin| pin["pattern"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_pinned_comes_back_and_with_force_nothing_else_stays_pinned() {
    let (hub, place) = (Hub::plain().await, Place::new());
    // What is ours needs no pin.
    let narrow = OPEN.replace("\"**\"", "\"golden/**\"");
    let mut larder = Larder::hosting(&hub, &narrow).await;
    Remote::new(larder.registry(), "golden/ui").push("v1", &Image::small(1)).await;
    for pattern in ["docker.io/library/alpine:3.20", "docker.io/library/base:*"] {
        pin(&larder, pattern).await;
    }
    let mut command = super::support::binary::larder();
    command.arg("backup").arg(place.backup()).args(["--json", "--admin", &larder.admin().to_string()]);
    let (code, out, err) = beside(command).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["pins"], 2, "the running server tells");
    larder.stop().await;
    assert_eq!(place.report(&larder.data(), &["backup"])["pins"], 2, "and its data directory");

    let mut other = Larder::hosting(&hub, &narrow).await;
    other.stop().await;
    place.report(&other.data(), &["restore"]);
    other.start().await;
    assert_eq!(pins(&other).await, ["docker.io/library/alpine:3.20", "docker.io/library/base:*"]);
    for pattern in ["docker.io/library/base:*", "docker.io/library/alpine:3.20"] {
        let path = format!("/api/pins?pattern={}", pattern.replace('*', "%2A"));
        let unpin = Call::new("DELETE", &path).header("X-Larder-Request", "1");
        assert_eq!(unpin.send(other.admin()).await.status, 200);
    }
    pin(&other, "docker.io/library/own:1").await;
    other.stop().await;
    assert_eq!(place.report(&other.data(), &["restore"])["pins"], 3);
    other.start().await;
    assert_eq!(pins(&other).await.first().unwrap(), "docker.io/library/own:1", "what is here already stays");
    other.stop().await;
    assert_eq!(place.report(&other.data(), &["restore", "--force"])["pins"], 2);

    // What cannot be read is named, and the rest comes back.
    fs::write(place.backup().join("larder/pins.json"), "nonsense").unwrap();
    let (report, said) = place.fails(&other.data(), &["restore"]);
    assert_eq!((&report["tags"], &report["pins"]), (&1.into(), &0.into()), "{report}");
    assert!(said.contains("pins.json"), "{said}");
}
