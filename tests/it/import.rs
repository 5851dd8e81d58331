//! `larder import`, through the built program: what is in an archive is pushed whole, and what is damaged is not.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use bytes::Bytes;
use larder::oci::Digest;
use serde_json::{Value, json};

use crate::support::binary::{larder, tries_other_programs};
use crate::support::client::Call;
use crate::support::hub::Hub;
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound, files};
use crate::support::pushing::Remote;

const OPEN: &str =
    "anonymous = \"push\"\n[[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\nimmutable_tags = [\"v*\"]";

async fn command(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let (mut command, input) = (larder(), input.to_owned());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

async fn import(larder: &Larder, file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let registry = larder.registry().to_string();
    let arguments = [&["import", file.to_str().unwrap(), "--registry", &registry], more].concat();
    command(&arguments, "").await
}

fn write_tar(path: PathBuf, files: &[(String, Vec<u8>)]) -> PathBuf {
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &content[..]).unwrap();
    }
    tar.into_inner().unwrap();
    path
}

#[tokio::test]
async fn what_was_exported_is_imported_the_same_and_sent_once() {
    let hub = Hub::plain().await;
    let image = Image::index_with_attestations(&[Image::oci(1, &[600_000, 20]), Image::small(2)]);
    hub.push("library/python", "3.11", &image);
    let (outside, inside) = (Larder::mirroring(&hub).await, Larder::hosting(&hub, OPEN).await);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("python.tar");
    let mirror = outside.mirror().to_string();
    let export = ["export", "--mirror", &mirror, "python:3.11", file.to_str().unwrap()];
    let (code, _, err) = command(&export, "").await;
    assert_eq!(code, Some(0), "{err}");
    hub.stop().await;

    let (code, out, err) = import(&inside, &file, &["golden/python:v1"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with(&format!("golden/python:v1: {}, ", image.digest())), "{out}");
    assert!(err.contains(" pushed\n") && !err.contains("already"), "{err}");
    Remote::new(inside.registry(), "golden/python").assert_pulls("v1", &image).await;
    let (code, _, err) = import(&inside, &file, &["golden/python:v2"]).await;
    assert!(code == Some(0) && err.contains(" was there already\n") && !err.contains(" pushed"), "{err}");

    // Names that are not ours, and tags that stay.
    let (code, _, err) = import(&inside, &file, &["library/python:3.11"]).await;
    assert!(code == Some(1) && err.contains("golden/**"), "{err}");
    let (code, _, err) = import(&inside, &file, &[]).await;
    assert!(code == Some(1) && err.contains("python:3.11: "), "{err}");
}

/// What Docker before 25 writes: layers without a registry's manifest, and links where two images share one.
#[tokio::test]
async fn what_docker_saved_gets_a_manifest() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let home = tempfile::tempdir().unwrap();
    let layers = [vec![1; 2048], vec![2; 700_000]];
    let ids: Vec<String> = layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}});
    let saved =
        json!([{"Config": "c.json", "RepoTags": ["golden/saved:old"], "Layers": ["a/layer.tar", "./b/layer.tar"]}]);
    let content = |second: &[u8]| {
        [
            ("a/layer.tar".to_owned(), layers[0].clone()),
            ("b/layer.tar".to_owned(), second.to_vec()),
            ("c.json".to_owned(), config.to_string().into_bytes()),
            ("manifest.json".to_owned(), saved.to_string().into_bytes()),
        ]
    };
    let file = write_tar(home.path().join("saved.tar"), &content(&layers[1]));
    let (code, out, err) = import(&larder, &file, &[]).await;
    assert_eq!(code, Some(0), "{err}");
    let repo = Remote::new(larder.registry(), "golden/saved");
    let manifest = repo.get("manifests/old").await;
    assert!(out.contains(manifest.header("docker-content-digest").unwrap()), "{out}");
    let manifest: Value = manifest.json();
    assert_eq!(manifest["layers"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    for (layer, entry) in layers.iter().zip(manifest["layers"].as_array().unwrap()) {
        let got = repo.get(&format!("blobs/{}", entry["digest"].as_str().unwrap())).await;
        assert!(got.body == *layer);
    }
    let got = repo.get(&format!("blobs/{}", manifest["config"]["digest"].as_str().unwrap())).await;
    assert_eq!(got.json(), config);

    let file = write_tar(home.path().join("damaged.tar"), &content(&[3; 700_000]));
    let (code, _, err) = import(&larder, &file, &["golden/damaged"]).await;
    assert!(code == Some(1) && err.contains("damaged"), "{err}");
}

#[tokio::test]
async fn a_damaged_archive_is_refused_before_anything_is_pushed() {
    let hub = Hub::plain().await;
    let larder = Larder::hosting(&hub, OPEN).await;
    let home = tempfile::tempdir().unwrap();
    let image = Image::small(1);
    let index = json!({"schemaVersion": 2, "manifests": [image.descriptor()]});
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let whole: Vec<(String, Vec<u8>)> = std::iter::once((blob(&image.digest()), image.manifest.to_vec()))
        .chain(image.blob_digests().iter().zip(&image.blobs).map(|(digest, bytes)| (blob(digest), bytes.to_vec())))
        .chain([("index.json".to_owned(), index.to_string().into_bytes())])
        .collect();
    for damaged in 0..whole.len() {
        let mut files = whole.clone();
        files[damaged].1[3] ^= 1;
        let flipped = write_tar(home.path().join("flipped.tar"), &files);
        files.remove(damaged);
        let missing = write_tar(home.path().join("missing.tar"), &files);
        for file in [flipped, missing] {
            let (code, _, err) = import(&larder, &file, &["golden/app"]).await;
            assert!(code == Some(1) && err.starts_with("larder: ") && err.lines().count() == 1, "{damaged}: {err}");
        }
    }
    assert_eq!(files(&larder.data().join("blobs")).len(), 0);
    let compressed = home.path().join("a.tar.gz");
    std::fs::write(&compressed, crate::support::image::gzip(b"x")).unwrap();
    let (_, _, err) = import(&larder, &compressed, &["golden/app"]).await;
    assert!(err.contains("gunzip"), "{err}");
    let good = write_tar(home.path().join("good.tar"), &whole);
    assert_eq!(import(&larder, &good, &[]).await.0, Some(2), "nobody says what it is called");
    assert_eq!(import(&larder, &good, &["golden/app:v1"]).await.0, Some(0));
    Remote::new(larder.registry(), "golden/app").assert_pulls("v1", &image).await;
}

#[tokio::test]
async fn an_account_is_asked_for_and_its_password_never_an_argument() {
    let hub = Hub::plain().await;
    let home = tempfile::tempdir().unwrap();
    let htpasswd = home.path().join("htpasswd");
    let (code, _, err) =
        command(&["user", "add", "anna", "--file", htpasswd.to_str().unwrap()], "correct-horse\n").await;
    assert_eq!(code, Some(0), "{err}");
    let rules = format!("htpasswd = {htpasswd:?}\n[[registry.repository]]\npattern = \"golden/**\"\npush = [\"anna\"]");
    let larder = Larder::hosting(&hub, &rules).await;
    let saved = json!([{"Config": "c.json", "RepoTags": ["golden/saved:old"], "Layers": []}]);
    let config = json!({"rootfs": {"type": "layers", "diff_ids": []}});
    let content = [
        ("c.json".to_owned(), config.to_string().into_bytes()),
        ("manifest.json".to_owned(), saved.to_string().into_bytes()),
    ];
    let file = write_tar(home.path().join("saved.tar"), &content);
    let (code, _, err) = import(&larder, &file, &[]).await;
    assert!(code == Some(1) && err.contains("--username NAME --password-stdin"), "{err}");
    let registry = larder.registry().to_string();
    let arguments =
        ["import", file.to_str().unwrap(), "--registry", &registry, "--username", "anna", "--password-stdin"];
    let (code, _, err) = command(&arguments, "wrong\n").await;
    assert!(code == Some(1) && !err.contains("wrong\n"), "{err}");
    let (code, _, err) = command(&arguments, "correct-horse\n").await;
    assert_eq!(code, Some(0), "{err}");
}

fn stopped_config(larder: &Larder, home: &Path) -> PathBuf {
    let file = home.join("stopped.toml");
    let text = format!("data_dir = {:?}\n[admin]\nlisten = \"127.0.0.1:1\"\n", larder.data());
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn an_air_gap_is_crossed_into_the_cache_of_a_stopped_server() {
    let hub = Hub::plain().await;
    let image = Image::index(&[Image::oci(1, &[600_000, 20]), Image::small(2)]);
    hub.push("library/python", "3.11", &image);
    let (outside, mut inside) = (Larder::mirroring(&hub).await, Larder::mirroring(&hub).await);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("python.tar");
    let mirror = outside.mirror().to_string();
    let export = ["export", "--mirror", &mirror, "python:3.11", file.to_str().unwrap()];
    assert_eq!(command(&export, "").await.0, Some(0));
    hub.stop().await;

    let config = stopped_config(&inside, home.path());
    let import = ["import", file.to_str().unwrap(), "--cache", "--config", config.to_str().unwrap()];
    let (code, _, err) = command(&import, "").await;
    assert!(code == Some(1) && err.lines().last().unwrap().starts_with("larder: "), "a server runs there: {err}");
    inside.stop().await;
    let (code, out, err) = command(&import, "").await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, format!("docker.io/library/python:3.11: {}\n", image.digest()));
    let (_, _, err) = command(&import, "").await;
    assert!(err.contains(" was there already\n") && !err.contains("taken in"), "{err}");
    inside.start().await;
    Remote::new(inside.mirror(), "library/python").assert_pulls("3.11", &image).await;
    assert_sound(&inside.data());
}

#[tokio::test]
async fn an_archive_goes_into_the_cache_of_a_running_server() {
    let hub = Hub::plain().await;
    let image = Image::index(&[Image::oci(1, &[3_000_000, 20]), Image::small(2)]);
    let outside = Larder::mirroring(&hub).await;
    let registry = format!("[registry]\nlisten = \"127.0.0.1:0\"\n{OPEN}\n");
    let inside = Larder::configured(&hub, "max_size = \"5MiB\"\nmin_free = \"0\"", &registry).await;
    // What was asked for in vain is there when it was brought.
    assert_eq!(inside.get("/v2/library/python/manifests/3.11").await.status, 404);
    hub.push("library/python", "3.11", &image);
    let home = tempfile::tempdir().unwrap();
    let (file, mirror) = (home.path().join("python.tar"), outside.mirror().to_string());
    assert_eq!(command(&["export", "--mirror", &mirror, "python:3.11", file.to_str().unwrap()], "").await.0, Some(0));
    hub.stop().await;

    let admin = inside.admin().to_string();
    let import = |name: &'static str| {
        let arguments = ["import", file.to_str().unwrap(), name, "--cache", "--admin", &admin];
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        async move { command(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "").await }
    };
    let (code, out, err) = import("docker.io/library/python:3.11").await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, format!("docker.io/library/python:3.11: {}\n", image.digest()));
    assert!(err.contains(" taken in\n"), "{err}");
    Remote::new(inside.mirror(), "library/python").assert_pulls("3.11", &image).await;
    let (_, _, err) = import("docker.io/library/python:3.11").await;
    assert!(err.contains(" was there already\n") && !err.contains("taken in"), "{err}");
    let (code, _, err) = import("golden/python:v1").await;
    assert!(code == Some(1) && err.contains("without --cache"), "{err}");
    let (code, _, err) = import("quay.io/team/python:v1").await;
    assert!(code == Some(1) && err.contains("quay.io"), "{err}");
    assert_sound(&inside.data());
}

#[tokio::test]
async fn what_is_wrong_or_finds_no_room_is_refused_by_a_running_server_and_nothing_of_it_stays() {
    let hub = Hub::plain().await;
    let larder = Larder::configured(&hub, "max_size = \"1MiB\"\nmin_free = \"0\"", "").await;
    let content = noise(1, 300_000);
    let digest = Digest::sha256(&content);
    let bring = async |size: usize, body: &[u8]| {
        let query = format!("repository=docker.io%2Flibrary%2Fa&digest={digest}&size={size}").replace(':', "%3A");
        let call = Call::new("POST", &format!("/api/intake/blob?{query}")).header("X-Larder-Request", "1");
        call.body(body).send(larder.admin()).await.status
    };
    let mut wrong = content.to_vec();
    wrong[299_999] ^= 1;
    assert_eq!(bring(300_000, &wrong).await, 422);
    assert_eq!(bring(300_000, &content[..200_000]).await, 400);
    assert_eq!(bring(200_000, &content).await, 400);
    assert_eq!(bring(2 << 20, b"").await, 507);
    assert_eq!(files(&larder.data().join("blobs")).len() + files(&larder.data().join("ingest")).len(), 0);
    assert_eq!(larder.metric("larder_cache_bytes", "").await, 0.0);
    assert_eq!(bring(300_000, &content).await, 200);
    let unmarked = Call::new("POST", "/api/intake/tag").send(larder.admin()).await;
    assert_eq!(unmarked.status, 403, "a page of another site cannot ask");
    let got = larder.get(&format!("/v2/library/a/blobs/{digest}")).await;
    assert!(got.status == 200 && got.body == content, "{}", got.text());
}

/// The directory as distribution writes it: `data` by digest, and links that name digests.
struct Proxy(PathBuf);

impl Proxy {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join("docker/registry/v2").join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn data(digest: &Digest) -> String {
        format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex())
    }

    /// What it has of an image when it has all of it.
    fn files(repo: &str, tag: Option<&str>, image: &Image) -> Vec<(String, Bytes)> {
        let link =
            |name: String, digest: &Digest| (format!("repositories/{repo}/{name}/link"), digest.to_string().into());
        let mut files: Vec<(String, Bytes)> = Vec::new();
        for (digest, bytes) in image.blob_digests().iter().zip(&image.blobs) {
            files.push((Proxy::data(digest), bytes.clone()));
            files.push(link(format!("_layers/sha256/{}", digest.hex()), digest));
        }
        files.extend(image.children.iter().flat_map(|child| Proxy::files(repo, None, child)));
        let digest = image.digest();
        files.push((Proxy::data(&digest), image.manifest.clone()));
        files.push(link(format!("_manifests/revisions/sha256/{}", digest.hex()), &digest));
        files.extend(tag.map(|tag| link(format!("_manifests/tags/{tag}/current"), &digest)));
        files
    }

    fn add(&self, repo: &str, tag: Option<&str>, image: &Image) {
        Proxy::files(repo, tag, image).iter().for_each(|(path, content)| self.write(path, content));
    }

    /// A real one keeps what it has passed on in its own time: the bytes first, and then what names them.
    async fn until_kept(&self, repo: &str, tag: &str, image: &Image) {
        for (path, content) in Proxy::files(repo, Some(tag), image) {
            while std::fs::read(self.path(&path)).unwrap_or_default() != content {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn the_cache_of_distributions_proxy_is_taken_over_and_what_is_damaged_left_out() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    hub.stop().await;
    larder.stop().await;
    let home = tempfile::tempdir().unwrap();
    let proxy = Proxy(home.path().join("registry"));
    let (image, other) = (Image::index(&[Image::oci(1, &[600_000]), Image::small(2)]), Image::small(3));
    proxy.add("library/python", Some("3.11"), &image);
    proxy.add("org/team/app", Some("v1"), &other);
    let rotten = other.blob_digests()[1];
    proxy.write(&Proxy::data(&rotten), b"something else");
    let lost = Digest::sha256(b"lost");
    proxy.write(&format!("repositories/org/team/app/_layers/sha256/{}/link", lost.hex()), b"");

    let config = stopped_config(&larder, home.path());
    let config = config.to_str().unwrap();
    let (code, out, err) =
        command(&["import", "--from-distribution", proxy.0.to_str().unwrap(), "--config", config], "").await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("taken over: 2 tags, 4 manifests, 7 blobs, "), "{out}");
    assert!(out.ends_with("left out: 1 damaged, 1 of which only the name was there\n"), "{out}");
    larder.start().await;
    assert_sound(&larder.data());
    Remote::new(larder.mirror(), "library/python").assert_pulls("3.11", &image).await;
    let app = Remote::new(larder.mirror(), "org/team/app");
    assert_eq!(app.get(&format!("blobs/{}", other.blob_digests()[2])).await.body, other.blobs[2]);
    assert_ne!(app.get(&format!("blobs/{rotten}")).await.status, 200);
    // Upstream is asked for what was damaged, once it is back.
    hub.push("org/team/app", "v1", &other);
    hub.start_again().await;
    larder.clock.advance(std::time::Duration::from_secs(3600));
    larder.until_up().await;
    app.assert_pulls("v1", &other).await;

    let (code, _, err) =
        command(&["import", "--from-distribution", home.path().to_str().unwrap(), "--config", config], "").await;
    assert!(code == Some(2) && err.contains("docker/registry/v2"), "{err}");
}

/// Debian's docker-registry, as a proxy. Killed when it is dropped.
struct DockerRegistry(std::process::Child);

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl DockerRegistry {
    async fn proxying(hub: &Hub, home: &Path) -> (DockerRegistry, std::net::SocketAddr) {
        let (config, log) = (home.join("registry.yml"), home.join("registry.log"));
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             proxy: {{remoteurl: {:?}}}\n",
            home.join("registry"),
            hub.registry_url()
        );
        std::fs::write(&config, text).unwrap();
        let stderr = std::fs::File::create(&log).unwrap();
        let mut command = std::process::Command::new("docker-registry");
        command.arg("serve").arg(config).stdout(Stdio::null()).stderr(stderr).env_clear();
        let mut running = DockerRegistry(command.spawn().unwrap());
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            let address = text.split_once("listening on ").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
            if let Some(address) = address {
                return (running, address);
            }
            assert!(running.0.try_wait().unwrap().is_none(), "it has ended: {text}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_a_real_docker_registry_cached_is_taken_over() {
    if !tries_other_programs() {
        return;
    }
    let hub = Hub::plain().await;
    let image = Image::oci(1, &[600_000, 20]);
    hub.push("library/python", "3.11", &image);
    let home = tempfile::tempdir().unwrap();
    let (registry, address) = DockerRegistry::proxying(&hub, home.path()).await;
    Remote::new(address, "library/python").assert_pulls("3.11", &image).await;
    Proxy(home.path().join("registry")).until_kept("library/python", "3.11", &image).await;
    drop(registry);
    let larder = Larder::mirroring(&hub).await;
    hub.stop().await;
    let (directory, admin) = (home.path().join("registry"), larder.admin().to_string());
    let import = ["import", "--from-distribution", directory.to_str().unwrap(), "--admin", &admin];
    let (code, out, err) = command(&import, "").await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("taken over: 1 tags, 1 manifests, 3 blobs, ") && out.lines().count() == 1, "{out}");
    Remote::new(larder.mirror(), "library/python").assert_pulls("3.11", &image).await;
}
