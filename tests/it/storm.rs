//! Many clients push many images at once while garbage is collected all the time and the server is killed (reliability.md,
//! R1 and R12): every push that was acknowledged pulls afterwards, byte for byte, and what was deleted is gone.
//!
//! The server is this test binary once more, as a process of its own: so it can be killed, and collects every second what
//! the real one would leave alone for an hour. `LARDER_SOAK=1` is the full size.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::app::Server;
use larder::clock::Clock;
use larder::config::Config;
use larder::oci::{Digest, MediaType};
use tokio::sync::watch;

use super::support::client::{Answer, Call, Connection, PATIENCE};
use super::support::image::{Image, noise};
use super::support::is_soak;
use super::support::larder::assert_sound;
use super::support::pushing::{Remote, descriptor, manifest, refusal, with_digest};

const REPOSITORIES: usize = 8;
const KILLS: usize = 3;
const PULLERS: usize = 4;
/// Longer than the pause between two requests of a push; should it not be, that push begins again.
const GRACE: Duration = Duration::from_secs(2);
const HOME: &str = "LARDER_STORM_HOME";

/// Images, and clients that push them.
fn size() -> (usize, usize) {
    if is_soak() { (500, 32) } else { (120, 16) }
}

/// The server. Says where it is, and what it has collected, in files.
#[test]
#[ignore = "the server of the test below"]
fn the_server() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let home = Path::new(&home);
    let config = Config::load(Some(&home.join("larder.toml")), std::iter::empty()).unwrap();
    let parent = rustix::process::getppid();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let server = Server::start(&config, Clock::system()).await.unwrap();
        fs::write(home.join("address.new"), server.registry.unwrap().to_string()).unwrap();
        fs::rename(home.join("address.new"), home.join("address")).unwrap();
        let mut collected = File::options().create(true).append(true).open(home.join("collected")).unwrap();
        let hosted = server.hosted.clone().unwrap();
        // Not for longer than whoever has started it.
        while rustix::process::getppid() == parent {
            let now = hosted.collect_garbage(GRACE).await.unwrap();
            if now.blobs > 0 {
                writeln!(collected, "{}", now.blobs).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}

struct Process(Child);

impl Process {
    fn start(home: &Path) -> (Process, SocketAddr) {
        let address = home.join("address");
        let _ = fs::remove_file(&address);
        let log = File::options().create(true).append(true).open(home.join("log")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "storm::the_server", "--ignored", "--nocapture"]).env(HOME, home);
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = fs::read_to_string(&address).ok().and_then(|text| text.parse().ok()) {
                return (Process(child), address);
            }
            let log = || fs::read_to_string(home.join("log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the server has ended: {}", log());
            assert!(Instant::now() < deadline, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Image `n`: a layer that all have, one that some have, and one of its own.
fn image(n: usize) -> Image {
    let n = n as u64;
    let layers = [noise(7, 300_000), noise(100 + n % 10, 100_000), noise(1000 + n, 20_000 + (n as usize % 7) * 30_000)];
    let config = Bytes::from(format!("{{\"n\":{n}}}"));
    let described: Vec<_> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let value = manifest(&descriptor("application/vnd.oci.image.config.v1+json", &config), &described);
    Image::from_json(MediaType::OciManifest, &value, std::iter::once(config).chain(layers).collect())
}

fn repository(at: SocketAddr, n: usize) -> Remote {
    Remote::new(at, &format!("team/app{}", n % REPOSITORIES))
}

/// One call; none if the server was killed before all of its answer had come.
async fn call(repo: &Remote, call: Call) -> Option<Answer> {
    let answer = Connection::open(repo.at).await.ok()?.call(&call).await;
    (answer.status != 0 && answer.complete).then_some(answer)
}

/// How a push ended that was not broken off.
#[derive(PartialEq)]
enum Pushed {
    Acknowledged,
    /// Something that it counted on was garbage by then.
    TooSlow,
}

/// Pushes image `n` as clients do: what is there is skipped, what another repository has is mounted, the rest comes whole,
/// streamed, or in chunks. None if the server was killed meanwhile.
async fn push(at: SocketAddr, n: usize, image: &Image) -> Option<Pushed> {
    let repo = repository(at, n);
    for blob in &image.blobs {
        let digest = Digest::sha256(blob);
        let there = call(&repo, Call::head(&repo.path(&format!("blobs/{digest}")))).await?;
        if there.status == 200 {
            continue;
        }
        assert_eq!(there.status, 404);
        let from = repository(at, n + 1).name;
        let mount = repo.path(&format!("blobs/uploads/?mount={digest}&from={from}"));
        let begun = call(&repo, Call::new("POST", &mount)).await?;
        if begun.status == 201 {
            continue;
        }
        assert_eq!(begun.status, 202, "{}", begun.text());
        let location = begun.header("location").unwrap();
        let half = blob.len() / 2;
        let parts: &[(usize, usize)] = match n % 3 {
            0 => &[],
            1 => &[(0, blob.len())],
            _ => &[(0, half), (half, blob.len())],
        };
        for &(first, end) in parts {
            let patch = Call::new("PATCH", location).body(&blob[first..end]);
            let patch = if n % 3 == 2 { patch.header("Content-Range", &format!("{first}-{}", end - 1)) } else { patch };
            let patched = call(&repo, patch).await?;
            assert_eq!(patched.status, 202, "{}", patched.text());
        }
        let rest: &[u8] = if parts.is_empty() { blob } else { &[] };
        let done = call(&repo, Call::new("PUT", &with_digest(location, digest)).body(rest)).await?;
        assert_eq!(done.status, 201, "{}", done.text());
    }
    let put = Call::new("PUT", &repo.path(&format!("manifests/v{n}")));
    let put = call(&repo, put.header("Content-Type", image.media_type.as_str()).body(&image.manifest)).await?;
    match put.status {
        201 => Some(Pushed::Acknowledged),
        _ => {
            assert_eq!(refusal(&put), (404, "MANIFEST_BLOB_UNKNOWN".into()), "{}", put.text());
            Some(Pushed::TooSlow)
        }
    }
}

/// Pulls image `n`; none if the server was killed meanwhile. Says what is wrong with it, if anything is.
async fn pull(at: SocketAddr, n: usize, image: &Image) -> Option<Result<(), String>> {
    let repo = repository(at, n);
    let parts = image.blobs.iter().map(|blob| (format!("blobs/{}", Digest::sha256(blob)), blob));
    for (path, bytes) in std::iter::once((format!("manifests/v{n}"), &image.manifest)).chain(parts) {
        let got = call(&repo, Call::get(&repo.path(&path))).await?;
        if got.status != 200 || got.body != *bytes {
            return Some(Err(format!("{n}: {path}: {} and {} bytes", got.status, got.body.len())));
        }
    }
    Some(Ok(()))
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Acknowledged,
    // Whether it will be there is not known: the answer may be lost.
    BeingDeleted,
    Deleted,
}

type Fates = Arc<Mutex<HashMap<usize, Fate>>>;

fn with_fate(fates: &Fates, fate: Fate) -> Vec<usize> {
    fates.lock().unwrap().iter().filter(|(_, one)| **one == fate).map(|(n, _)| *n).collect()
}

/// Where the server is, and how often it has been killed before.
type Place = (usize, SocketAddr);

/// Where the server is that comes after the one there.
async fn next_place(places: &mut watch::Receiver<Place>, failed: Place) -> Place {
    *places.wait_for(|place| place.0 > failed.0).await.unwrap()
}

async fn push_all(mut places: watch::Receiver<Place>, next: Arc<AtomicUsize>, fates: Fates, images: usize) {
    let mut place = *places.borrow();
    loop {
        let n = next.fetch_add(1, Ordering::SeqCst);
        if n >= images {
            return;
        }
        let image = image(n);
        loop {
            match push(place.1, n, &image).await {
                Some(Pushed::Acknowledged) => break,
                Some(Pushed::TooSlow) => {}
                None => place = next_place(&mut places, place).await,
            }
        }
        fates.lock().unwrap().insert(n, Fate::Acknowledged);
        // Every fourth does not last, and leaves garbage.
        if n % 4 == 3 {
            fates.lock().unwrap().insert(n, Fate::BeingDeleted);
            let repo = repository(place.1, n);
            let path = repo.path(&format!("manifests/{}", image.digest()));
            if let Some(deleted) = call(&repo, Call::new("DELETE", &path)).await {
                assert_eq!(deleted.status, 202, "{}", deleted.text());
                fates.lock().unwrap().insert(n, Fate::Deleted);
            }
        }
    }
}

async fn pull_always(mut places: watch::Receiver<Place>, fates: Fates, images: usize, puller: usize) {
    let mut place = *places.borrow();
    for round in puller.. {
        let there = with_fate(&fates, Fate::Acknowledged);
        if there.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let n = there[round * 7 % there.len()];
        match pull(place.1, n, &image(n)).await {
            Some(Ok(())) => {}
            Some(Err(wrong)) => {
                let expected = fates.lock().unwrap()[&n] == Fate::Acknowledged;
                assert!(!expected, "an acknowledged push: {wrong}");
            }
            None => place = next_place(&mut places, place).await,
        }
        if fates.lock().unwrap().len() == images {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_push_pulls_whatever_happened_meanwhile() {
    let (images, clients) = size();
    let home = tempfile::tempdir().unwrap();
    let config = format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[registry]\n\
         listen = \"127.0.0.1:0\"\nanonymous = \"push\"\n[[registry.repository]]\npattern = \"team/**\"\npush = [\"*\"]\n\
         delete = [\"*\"]\n[[upstream]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\"\n",
        home.path().join("data")
    );
    fs::write(home.path().join("larder.toml"), config).unwrap();
    let (mut server, at) = Process::start(home.path());
    let (place, places) = watch::channel((0, at));
    let (next, fates) = (Arc::new(AtomicUsize::new(0)), Fates::default());
    let pushers = (0..clients).map(|_| push_all(places.clone(), next.clone(), fates.clone(), images));
    let pushers: Vec<_> = pushers.map(tokio::spawn).collect();
    let pullers = (0..PULLERS).map(|puller| pull_always(places.clone(), fates.clone(), images, puller));
    let pullers: Vec<_> = pullers.map(tokio::spawn).collect();
    for kill in 1..=KILLS {
        while fates.lock().unwrap().len() < images * kill / (KILLS + 1) {
            assert!(!pushers.iter().all(tokio::task::JoinHandle::is_finished), "nobody pushes any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(server);
        let (again, at) = Process::start(home.path());
        server = again;
        place.send_replace((kill, at));
    }
    for task in pushers.into_iter().chain(pullers) {
        task.await.unwrap();
    }
    // Once more, and with all garbage gone.
    let collected = || -> usize {
        let text = fs::read_to_string(home.path().join("collected")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse::<usize>().ok()).sum()
    };
    let deadline = Instant::now() + PATIENCE;
    while collected() == 0 {
        assert!(Instant::now() < deadline, "nothing was ever collected: {}", home.path().display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(server);
    let (server, at) = Process::start(home.path());
    for n in with_fate(&fates, Fate::Acknowledged) {
        assert_eq!(pull(at, n, &image(n)).await, Some(Ok(())));
    }
    for n in with_fate(&fates, Fate::Deleted) {
        let gone = repository(at, n).get(&format!("manifests/v{n}")).await;
        assert_eq!(gone.status, 404, "{n} was deleted");
    }
    assert_eq!(fates.lock().unwrap().len(), images);
    drop(server);
    assert_sound(&home.path().join("data"));
}
