//! The real server, in this process: its own data directory, free ports, and a clock that the test moves by hand.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use larder::app::Server;
use larder::clock::Clock;
use larder::config::Config;
use tempfile::TempDir;

use super::client::{Answer, Call};
use super::hub::Hub;

/// A running mirror.
pub struct Larder {
    /// Its time.
    pub clock: Clock,
    home: TempDir,
    data: PathBuf,
    config: String,
    server: Option<Server>,
}

impl Larder {
    /// A mirror of `hub` with short time limits.
    pub async fn mirroring(hub: &Hub) -> Larder {
        Larder::configured(hub, "", "").await
    }

    /// The same, with more lines for `[cache]` and for its `[[upstream]]`.
    pub async fn configured(hub: &Hub, cache: &str, upstream: &str) -> Larder {
        Larder::mirroring_all(&[("docker.io", hub, upstream)], cache).await
    }

    /// A mirror of several hubs: what clients call each, and more lines for its `[[upstream]]`. The first is the default.
    pub async fn mirroring_all(hubs: &[(&str, &Hub, &str)], cache: &str) -> Larder {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        Larder::keeping(home, data, hubs, cache).await
    }

    /// The same, with its data where a test wants it.
    pub async fn keeping(home: TempDir, data: PathBuf, hubs: &[(&str, &Hub, &str)], cache: &str) -> Larder {
        let mut config = format!(
            "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[cache]\n{cache}\n",
            data,
        );
        for (n, (name, hub, lines)) in hubs.iter().enumerate() {
            let url = hub.registry_url();
            writeln!(config, "[[upstream]]\nname = {name:?}\nurl = {url:?}\ndefault = {}\n{lines}", n == 0).unwrap();
            if hub.is_tls() {
                writeln!(config, "ca = {:?}", hub.ca_file()).unwrap();
            }
        }
        let mut larder = Larder { clock: Clock::system(), home, data, config, server: None };
        larder.start().await;
        larder
    }

    /// The same with a registry beside it; `more` goes into `[registry]`.
    pub async fn hosting(hub: &Hub, more: &str) -> Larder {
        let registry = format!("[registry]\nlisten = \"127.0.0.1:0\"\n{more}\n");
        Larder::configured(hub, "", &registry).await
    }

    /// Where clients push.
    pub fn registry(&self) -> SocketAddr {
        self.server.as_ref().unwrap().registry.unwrap()
    }

    /// What is hosted, seen from inside: for what no request does.
    pub fn hosted(&self) -> larder::hosted::Hosted {
        self.server.as_ref().unwrap().hosted.clone().unwrap()
    }

    /// Starts, for the first time or again after [`Larder::stop`], on the same data.
    pub async fn start(&mut self) {
        let file = self.home.path().join("larder.toml");
        std::fs::write(&file, &self.config).unwrap();
        let config = Config::load(Some(&file), std::iter::empty()).unwrap();
        self.server = Some(Server::start(&config, self.clock.clone()).await.unwrap());
    }

    /// Stops in good order, and starts on the same data. Until its index is open it does not know when a tag was last confirmed.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
        self.until_indexed().await;
    }

    /// Waits until the index is in order.
    pub async fn until_indexed(&self) {
        while self.metric("larder_index_state", "").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The same, but finds the index as a process leaves it that was killed before all this.
    pub async fn restart_as_if_killed(&mut self) {
        let killed = self.home.path().join("killed");
        // What did not change while it was read is a state that it was in.
        loop {
            let before = index_files(&self.data);
            let _ = std::fs::remove_dir_all(&killed);
            for (path, content) in
                before.iter().flat_map(|(path, _)| std::fs::read(path).map(|content| (path, content)))
            {
                let copy = killed.join(path.strip_prefix(&self.data).unwrap());
                std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
                std::fs::write(copy, content).unwrap();
            }
            if index_files(&self.data) == before {
                break;
            }
        }
        self.stop().await;
        remove_index(&self.data);
        for (path, content) in files(&killed) {
            let back = self.data.join(path.strip_prefix(&killed).unwrap());
            std::fs::create_dir_all(back.parent().unwrap()).unwrap();
            std::fs::write(back, content).unwrap();
        }
        self.start().await;
    }

    /// The same, but makes its index from the files.
    pub async fn restart_without_index(&mut self) {
        self.stop().await;
        remove_index(&self.data);
        self.start().await;
    }

    /// The same, with more lines for the upstream.
    pub async fn restart_with(&mut self, upstream: &str) {
        self.stop().await;
        writeln!(self.config, "{upstream}").unwrap();
        self.start().await;
    }

    /// The same with a token for who changes things. Gives its file.
    pub async fn restart_with_token(&mut self, token: &str) -> PathBuf {
        self.stop().await;
        let file = self.home.path().join("admin-token");
        std::fs::write(&file, format!("{token}\n")).unwrap();
        self.config = self.config.replace("[admin]\n", &format!("[admin]\ntoken_file = {file:?}\n"));
        self.start().await;
        file
    }

    /// Stops in good order.
    pub async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        server.begin_to_stop(Duration::from_secs(5));
        server.stopped().await;
    }

    /// Where clients pull.
    pub fn mirror(&self) -> SocketAddr {
        self.server.as_ref().unwrap().mirror
    }

    /// Where the operator looks.
    pub fn admin(&self) -> SocketAddr {
        self.server.as_ref().unwrap().admin
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// `GET` at the mirror.
    pub async fn get(&self, path: &str) -> Answer {
        Call::get(path).send(self.mirror()).await
    }

    /// `HEAD` at the mirror.
    pub async fn head(&self, path: &str) -> Answer {
        Call::head(path).send(self.mirror()).await
    }

    /// Waits until no blob is being fetched.
    pub async fn until_idle(&self) {
        while self.metric("larder_fills_in_flight", "").await > 0.0 {
            tokio::task::yield_now().await;
        }
    }

    /// Moves time until the probe has found every part of every upstream well. What was wrong must be over.
    pub async fn until_up(&self) {
        while self.metric("larder_upstream_up", "").await < 3.0 {
            self.clock.advance(Duration::from_secs(1));
        }
    }

    /// Moves time until the tag at `path` is confirmed again. What was wrong must be over. Nothing asks about it any more then.
    pub async fn until_confirmed(&self, path: &str) {
        self.until_up().await;
        while self.get(path).await.header("x-larder-cache") == Some("stale") {
            self.clock.advance(Duration::from_secs(31));
        }
    }

    /// The sum of all series of a metric whose labels contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let page = Call::get("/metrics").send(self.admin()).await.text();
        let series = page.lines().filter(|line| {
            let (series, _) = line.rsplit_once(' ').unwrap_or_default();
            series.split('{').next() == Some(name) && series.contains(label)
        });
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// Every file below `directory`, with its content. What a running server took away while this looked is not among them.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| match std::fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        content => Some((path, content.unwrap())),
    };
    paths(directory).into_iter().filter_map(read).collect()
}

/// Every file below `directory`.
pub fn paths(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(paths(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The files of the index, and when each was written last.
fn index_files(data: &Path) -> Vec<(PathBuf, Option<SystemTime>)> {
    let mut found = paths(&data.join("index"));
    found.extend(["index.epoch", "index.begins"].map(|name| data.join(name)).into_iter().filter(|path| path.exists()));
    found.sort();
    let written = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    found.into_iter().map(|path| (path.clone(), written(&path))).collect()
}

fn remove_index(data: &Path) {
    for (path, _) in index_files(data) {
        std::fs::remove_file(path).unwrap();
    }
}

/// That every blob at rest is what its name says, and nothing is half-way in.
pub fn assert_sound(data: &Path) {
    for algorithm in ["sha256", "sha512"] {
        for (path, content) in files(&data.join("blobs").join(algorithm)) {
            if path.extension().is_some_and(|extension| extension == "crc") {
                continue;
            }
            let digest: larder::oci::Digest =
                format!("{algorithm}:{}", path.file_name().unwrap().to_str().unwrap()).parse().unwrap();
            assert!(digest.matches(&content), "{path:?} has other content than its name says");
        }
    }
}

/// Bytes on disk that blobs take, those on their way in included: at one moment, although looking takes longer than that.
pub fn used(data: &Path) -> u64 {
    // What was here before that moment and is here after it was here at it. A name may change meanwhile, and a number may be
    // given anew.
    let (before, after) = (occupied(data), occupied(data));
    before.into_iter().filter(|(file, _)| after.contains_key(file)).map(|(_, bytes)| bytes).sum()
}

fn occupied(data: &Path) -> HashMap<(u64, Option<SystemTime>), u64> {
    let mut found = HashMap::new();
    let mut ahead = vec![data.join("blobs"), data.join("ingest")];
    while let Some(directory) = ahead.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => ahead.push(entry.path()),
                // The link or tag that is just being written is no blob.
                Ok(_) if entry.file_name().to_string_lossy().starts_with(".tmp") => {}
                Ok(metadata) => {
                    found.insert((metadata.ino(), metadata.created().ok()), metadata.blocks() * 512);
                }
                Err(_) => {}
            }
        }
    }
    found
}
