//! The process as a whole: killed at any moment, started twice, asked to stop, and what it writes about all that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use larder::clock::Clock;
use larder::oci::Digest;
use larder::storage::{Limits, Settings, Store, Verify};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use crate::support::binary::{Binary, larder};
use crate::support::client::{Call, Connection};
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::{Image, noise};
use crate::support::larder::{assert_sound, files};

const REPO: &str = "library/alpha";

fn config(home: &Path, hub: &Hub, upstream: &str) -> String {
    format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n{upstream}\n",
        home.join("data"),
        hub.registry_url()
    )
}

/// Something that a client was given whole: it must be there for ever after.
struct Given {
    path: String,
    content: Vec<u8>,
}

/// Pulls `image` as `tag`, and says what of it came whole. The server may be killed meanwhile.
async fn pull(mirror: std::net::SocketAddr, tag: String, image: Image) -> Vec<Given> {
    let mut wanted = vec![(format!("/v2/{REPO}/manifests/{tag}"), image.manifest.to_vec())];
    let blobs = image.blob_digests().into_iter().zip(&image.blobs);
    wanted.extend(blobs.map(|(digest, blob)| (format!("/v2/{REPO}/blobs/{digest}"), blob.to_vec())));
    let mut given = Vec::new();
    for (path, content) in wanted {
        let Ok(mut connection) = Connection::open(mirror).await else { break };
        let answer = connection.call(&Call::get(&path)).await;
        if answer.complete && answer.status == 200 {
            assert_eq!(answer.body, content, "{path}: complete and wrong");
            given.push(Given { path, content });
        }
    }
    given
}

fn assert_index_says_what_the_files_say(data: &Path) {
    let limits = Limits { max_size: 1 << 40, min_free: 0 };
    let settings = Settings { data_dir: data.to_owned(), index_cache: 8 << 20, limits, verify: Verify::Never };
    let store = Store::open(settings, Clock::system(), &prometheus::Registry::new()).unwrap();
    assert!(store.index().settle(Duration::from_secs(60)), "the index is {}", store.index().state());
    let differences: Vec<String> = store.index().verify().unwrap().iter().map(ToString::to_string).collect();
    assert!(differences.is_empty(), "{differences:#?}");
    store.close();
}

/// What can happen to sled's folder between two starts.
fn damage_index(data: &Path, kind: usize) {
    let index = data.join("index");
    let database = files(&index).into_iter().map(|(path, _)| path).find(|path| path.ends_with("db"));
    match (kind, database) {
        (0, _) => fs::remove_dir_all(&index).unwrap(),
        (1, Some(database)) => truncate(&database, 2),
        (2, Some(database)) => truncate(&database, u64::MAX),
        (3, Some(database)) => {
            let mut bytes = fs::read(&database).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(&database, bytes).unwrap();
        }
        (4, Some(database)) => {
            fs::write(database.with_file_name("snap.0000000000000042.generating"), "half a snapshot").unwrap();
        }
        _ => {}
    }
}

fn truncate(file: &PathBuf, divisor: u64) {
    let length = fs::metadata(file).unwrap().len() / divisor;
    fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_serves_nothing_wrong_and_loses_nothing_it_gave() {
    const ROUNDS: u64 = 50;
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let (config, data) = (config(home.path(), &hub, ""), home.path().join("data"));
    let mut random = StdRng::seed_from_u64(2);
    let mut given: Vec<Given> = Vec::new();
    let mut killed_mid_fill = 0;
    for round in 0..ROUNDS {
        let larder = Binary::start(home.path(), &config, "warn,larder=info");
        // What was given once is here, byte for byte, with the upstream gone.
        hub.stop().await;
        for known in &given {
            let answer = Call::get(&known.path).send(larder.mirror).await;
            if answer.status == 503 && known.path.contains("/manifests/") && answer.text().contains("is not offered") {
                // The kill came before its layers, which cannot be had now: it is kept back, and it is here.
                let digest = Digest::sha256(&known.content).hex();
                let kept = data.join("blobs/sha256").join(&digest[..2]).join(&digest);
                assert_eq!(fs::read(kept).unwrap(), known.content, "round {round}: {}", known.path);
                continue;
            }
            assert_eq!((answer.status, answer.complete), (200, true), "round {round}: {} is lost", known.path);
            assert_eq!(answer.body, known.content, "round {round}: {}", known.path);
        }
        hub.start_again().await;
        // What was half there was asked for in vain, so the upstream is out of order until a probe finds out: a new
        // process has not met that.
        larder.kill();
        let larder = Binary::start(home.path(), &config, "warn,larder=info");
        let mut pulls = JoinSet::new();
        for n in 0..4 {
            let seed = round * 10 + n;
            let image = Image::oci(seed, &[900_000, 200_000, 3_000]);
            hub.push(REPO, &format!("v{seed}"), &image);
            pulls.spawn(pull(larder.mirror, format!("v{seed}"), image));
        }
        sleep(Duration::from_millis(random.random_range(0..60))).await;
        larder.kill();
        killed_mid_fill += usize::from(!files(&data.join("ingest")).is_empty());
        while let Some(pulled) = pulls.join_next().await {
            given.extend(pulled.unwrap());
        }
        assert_sound(&data);
        damage_index(&data, random.random_range(0..10));
        if round % 10 == 9 {
            let data = data.clone();
            tokio::task::spawn_blocking(move || assert_index_says_what_the_files_say(&data)).await.unwrap();
        }
    }
    assert!(killed_mid_fill > 5, "only {killed_mid_fill} of {ROUNDS} kills met a fill");
    assert!(given.len() > 50, "only {} pieces were given in all", given.len());
}

#[tokio::test]
async fn an_index_that_is_gone_is_made_again_from_the_files() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let config = config(home.path(), &hub, "");
    let larder = Binary::start(home.path(), &config, "info");
    for repo in ["library/alpha", "org/app"] {
        hub.push(repo, "latest", &Image::small(1));
        assert_eq!(Call::get(&format!("/v2/{repo}/manifests/latest")).send(larder.mirror).await.status, 200);
    }
    larder.terminate();
    tokio::task::spawn_blocking(|| larder.ended()).await.unwrap();
    fs::remove_dir_all(home.path().join("data/index")).unwrap();
    hub.stop().await;
    let larder = Binary::start(home.path(), &config, "info");
    let answer = Call::get("/v2/org/app/manifests/latest").send(larder.mirror).await;
    assert_eq!((answer.status, answer.header("x-larder-cache").is_some()), (200, true), "served at once");
    let all = serde_json::json!(["docker.io/library/alpha", "docker.io/org/app"]);
    while Call::get("/v2/_catalog").send(larder.mirror).await.json()["repositories"] != all {
        tokio::task::yield_now().await;
    }
    let metrics = Call::get("/metrics").send(larder.admin).await.text();
    assert!(metrics.contains("larder_index_rebuilds_total 1"), "{metrics}");
    larder.terminate();
    tokio::task::spawn_blocking(|| larder.ended()).await.unwrap();
    let data = home.path().join("data");
    tokio::task::spawn_blocking(move || assert_index_says_what_the_files_say(&data)).await.unwrap();
}

#[tokio::test]
async fn it_starts_and_serves_its_cache_when_no_name_resolves() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let image = Image::small(2);
    hub.push(REPO, "latest", &image);
    let config = config(home.path(), &hub, "");
    let larder = Binary::start(home.path(), &config, "info");
    assert_eq!(pull(larder.mirror, "latest".into(), image.clone()).await.len(), 4);
    larder.kill();
    // RFC 6761: no resolver knows a name below `invalid`.
    let nowhere = config.replace(hub.registry_url(), "https://registry.invalid") + "[cache]\ntag_ttl = \"0s\"\n";
    let larder = Binary::start(home.path(), &nowhere, "info");
    assert_eq!(pull(larder.mirror, "latest".into(), image).await.len(), 4);
    let unknown = Call::get(&format!("/v2/{REPO}/manifests/unknown")).send(larder.mirror).await;
    assert_eq!(unknown.status, 503);
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused_and_the_first_unharmed() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let image = Image::small(1);
    hub.push(REPO, "latest", &image);
    let config = config(home.path(), &hub, "");
    let first = Binary::start(home.path(), &config, "info");
    let second = larder().args(["serve", "--config"]).arg(home.path().join("larder.toml")).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("is in use by another larder") && said.contains("data_dir"), "{said}");
    assert_eq!(pull(first.mirror, "latest".into(), image.clone()).await.len(), 4);
}

#[tokio::test]
async fn a_taken_address_and_a_foreign_directory_are_refused_with_advice() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign = home.path().join("documents");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "years of work").unwrap();
    let config = config(home.path(), &hub, "");
    let file = home.path().join("larder.toml");
    for (change, advice) in [
        (("127.0.0.1:0\"\n[admin]", format!("{}\"\n[admin]", taken.local_addr().unwrap())), "already"),
        (("/data\"", "/documents\"".to_owned()), "not empty and not Larder's"),
    ] {
        fs::write(&file, config.replace(change.0, &change.1)).unwrap();
        let output = larder().args(["serve", "--config"]).arg(&file).stdout(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(advice), "{said}");
    }
    assert_eq!(files(&foreign).len(), 1);
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_it_has_begun_and_no_more() {
    let (hub, home) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let content = noise(2, 1_000_000);
    let digest = hub.add_blob(REPO, content.clone());
    let larder = Binary::start(home.path(), &config(home.path(), &hub, ""), "info");
    let half = hub.fault(Target::Cdn, Fault::Stall(500_000));
    let mut body = Call::get(&format!("/v2/{REPO}/blobs/{digest}")).open(larder.mirror).await;
    body.read(100_000).await;
    larder.terminate();
    while Connection::open(larder.mirror).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let ready = Call::get("/readyz").send(larder.admin).await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "stopping\n"));
    half.release();
    let rest = body.rest().await;
    assert!(rest.complete && rest.body == content[100_000..]);
    assert!(tokio::task::spawn_blocking(|| larder.ended()).await.unwrap().success());
    assert_sound(&home.path().join("data"));
}

#[tokio::test]
async fn no_secret_is_written_anywhere() {
    const PASSWORD: &str = "hunter2-planted-password";
    let (hub, home) = (Hub::tls().await, tempfile::tempdir().unwrap());
    hub.settings(|settings| drop(settings.accounts.insert("planted-user".into(), PASSWORD.into())));
    let image = Image::oci(3, &[100_000]);
    hub.push(REPO, "latest", &image);
    let password = home.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let upstream = format!("ca = {:?}\nusername = \"planted-user\"\npassword_file = {password:?}", hub.ca_file());
    let larder = Binary::start(home.path(), &config(home.path(), &hub, &upstream), "trace");
    let client =
        Call::get(&format!("/v2/{REPO}/manifests/latest")).header("Authorization", "Basic cGxhbnRlZC1jbGllbnQ=");
    assert_eq!(client.send(larder.mirror).await.status, 200);
    assert_eq!(pull(larder.mirror, "latest".into(), image.clone()).await.len(), 3);
    // Failures are written about at more length.
    let mut bodies = String::new();
    for fault in [Fault::error(401, "UNAUTHORIZED"), Fault::gateway(500), Fault::cdn_denies()] {
        let digest = hub.add_blob(REPO, noise(fault_seed(&fault), 100));
        let rule = hub.fault(Target::Cdn, fault);
        bodies += &Call::get(&format!("/v2/{REPO}/blobs/{digest}")).send(larder.mirror).await.text();
        rule.lift();
    }
    let metrics = Call::get("/metrics").send(larder.admin).await.text();
    // The log is written beside the work.
    while larder.log().matches("\"larder::access\"").count() < 1 + 3 + 3 {
        tokio::task::yield_now().await;
    }
    let written = format!("{}{metrics}{bodies}", larder.log());
    assert!(written.contains("\"path\":\"/v2/library/alpha/manifests/latest\""), "the log has no request in it");

    // One line for each request, with what an operator looks for.
    let lines = larder.log();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let access: Vec<_> = lines.filter(|line| line["target"] == "larder::access").collect();
    assert_eq!(access.len(), 1 + 3 + 3);
    for key in ["client", "method", "path", "status", "outcome", "size_bytes", "duration_ms", "complete", "agent"] {
        assert!(access.iter().all(|line| !line[key].is_null()), "a line has no {key}: {access:#?}");
    }
    assert!(access[1]["digest"].as_str().unwrap().starts_with("sha256:"));

    let mut secrets = vec![PASSWORD.to_owned(), "cGxhbnRlZC1jbGllbnQ=".to_owned()];
    for seen in hub.requests() {
        let authorization = seen.header(hyper::header::AUTHORIZATION);
        secrets.extend(authorization.and_then(|value| value.split(' ').nth(1)).map(str::to_owned));
        let signature = seen.path.split_once('?').filter(|_| seen.is(Target::Cdn));
        secrets.extend(signature.map(|(_, query)| query.to_owned()));
    }
    assert!(secrets.len() > 6, "tokens and signatures were not seen");
    for secret in secrets {
        let at = written.find(&secret).map(|at| &written[at.saturating_sub(300)..at]);
        assert_eq!(at, None, "a secret is written behind this");
    }
}

fn fault_seed(fault: &Fault) -> u64 {
    let text = format!("{fault:?}");
    u64::from(Digest::sha256(text.as_bytes()).bytes()[0])
}
