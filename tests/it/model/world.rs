//! What there is: a hub, a mirror of it with a registry of its own, and what of it must be there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder::oci::Digest;
use serde_json::{Value, json};

use super::{Restart, Step};
use crate::stale::until_out_of_order;
use crate::support::client::{Call, PATIENCE, get};
use crate::support::hub::Hub;
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, files, paths, used};
use crate::support::pushing::Remote;

/// The limit, in bytes.
const CAP: u64 = 512 << 10;
/// Images upstream.
pub(super) const IMAGES: usize = 16;
/// Images of ours.
pub(super) const OURS: usize = 4;
/// Images that may be pinned in the course of things, beside the one that the configuration names.
pub(super) const PINNABLE: usize = 3;
const REGISTRY: &str = "[registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"push\"\n[[registry.repository]]\n\
                        pattern = \"golden/**\"\npush = [\"*\"]\ndelete = [\"*\"]\nmirror = true\n";

fn name(n: usize) -> String {
    format!("library/i{n}")
}

fn tag(n: usize) -> String {
    format!("/v2/{}/manifests/latest", name(n))
}

/// Images that share layers: each has two of eight that are common, and one of its own.
fn images() -> Vec<Image> {
    let shared: Vec<Bytes> = (0..8).map(|n| noise(7000 + n, 20_000 + 9_000 * n as usize)).collect();
    let image = |n: usize| {
        let own = noise(7100 + n as u64, 30_000 + 2_000 * n);
        Image::of_layers(n, vec![shared[n % 8].clone(), shared[(n * 3 + 1) % 8].clone(), own])
    };
    (0..IMAGES).map(image).collect()
}

/// Bytes of disk that blobs take, by who holds them.
#[derive(Default)]
struct OnDisk {
    hosted: u64,
    cached: u64,
    nobodys: u64,
}

pub(super) struct World {
    pub(super) larder: Larder,
    hub: Hub,
    images: Vec<Image>,
    ours: Vec<Image>,
    // Which image each name means upstream.
    tags: Vec<usize>,
    pushed: HashSet<usize>,
    pinned: HashSet<usize>,
    // Names that are pinned and were there whole, as upstream has them.
    stay: HashSet<usize>,
}

impl World {
    pub(super) async fn new() -> World {
        let hub = Hub::plain().await;
        // Unpaced: a clock that is moved while something is fetched runs into the time limits of that.
        let cache = format!(
            "max_size = \"{CAP}B\"\nmin_free = \"0\"\nscrub = \"never\"\nscrub_rate = \"unlimited\"\n\
             pin = [\"library/i0:*\"]\n"
        );
        let larder = Larder::configured(&hub, &cache, REGISTRY).await;
        let (images, tags): (Vec<Image>, Vec<usize>) = (images(), (0..IMAGES).collect());
        for (n, image) in images.iter().enumerate() {
            hub.push(&name(n), "latest", image);
        }
        // The last of them is someone else's, pushed here: some of its content is cached and ours.
        let own = (1..OURS).map(|n| Image::oci(8000 + n as u64, &[20_000, 3_000]));
        let ours: Vec<Image> = own.chain([images[5].clone()]).collect();
        let (pushed, pinned, stay) = (HashSet::new(), HashSet::from([0]), HashSet::new());
        World { larder, hub, images, ours, tags, pushed, pinned, stay }
    }

    fn remote(&self, n: usize) -> Remote {
        Remote::new(self.larder.registry(), &format!("golden/o{n}"))
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.larder.data().join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    fn is_here(&self, image: &Image) -> bool {
        image.blob_digests().into_iter().chain([image.digest()]).all(|digest| self.file(&digest).exists())
    }

    pub(super) async fn take(&mut self, step: &Step) {
        match step {
            Step::Pull(n) => self.pull(&[*n]).await,
            Step::Herd(all) => self.pull(all).await,
            Step::Range(n) => self.range(*n).await,
            Step::Digest(n) => {
                let (digest, content) = self.images[self.tags[*n]].layer(2);
                let answer = self.larder.get(&format!("/v2/{}/blobs/{digest}", name(*n))).await;
                assert!(answer.status == 200 && answer.body == content, "{digest}: {}", answer.status);
            }
            Step::Move(n, image) => {
                self.tags[*n] = *image;
                self.hub.push(&name(*n), "latest", &self.images[*image]);
                self.stay.remove(n);
            }
            Step::Remove(n) => self.remove(*n).await,
            Step::Pin(n) => {
                let wish = json!({"pattern": name(*n)}).to_string();
                let call = Call::new("POST", "/api/pins").header("Content-Type", "application/json");
                let answer = call.body(wish.as_bytes()).send(self.larder.admin()).await;
                assert_eq!((answer.status, &answer.json()["changed"]), (200, &json!(self.pinned.insert(*n))));
            }
            Step::Unpin(n) => {
                self.stay.remove(n);
                let status = self.operate(&format!("/api/pins?pattern={}", name(*n))).await.0;
                assert_eq!(status == 200, self.pinned.remove(n), "{status}");
            }
            Step::Push(n) => {
                self.remote(*n).push("v1", &self.ours[*n]).await;
                self.pushed.insert(*n);
            }
            Step::Delete(n) => {
                let answer = self.remote(*n).ask("DELETE", &format!("manifests/{}", self.ours[*n].digest())).await;
                assert_eq!(answer.status == 202, self.pushed.remove(n), "{}", answer.text());
            }
            Step::Collect => {
                self.larder.hosted().collect_garbage(Duration::from_secs(600)).await.unwrap();
            }
            Step::Rot(n) => self.rot(*n).await,
            Step::Wait(seconds) => self.larder.clock.advance(Duration::from_secs(*seconds)),
            Step::Restart(Restart::InOrder) => self.larder.restart().await,
            Step::Restart(Restart::Unflushed) => self.larder.restart_as_if_killed().await,
            Step::Restart(Restart::WithoutIndex) => self.larder.restart_without_index().await,
            Step::Outage => self.outage().await,
        }
        self.larder.until_idle().await;
        let pulled: &[usize] = match step {
            Step::Pull(n) => &[*n],
            Step::Herd(all) => all,
            _ => &[],
        };
        // What found no room for all of it is not kept whole.
        for n in pulled.iter().filter(|n| self.pinned.contains(n)) {
            let (answer, image) = (self.larder.get(&tag(*n)).await, &self.images[self.tags[*n]]);
            if answer.body == image.manifest && self.is_here(image) {
                self.stay.insert(*n);
            }
        }
    }

    /// Pulls all of these at one time.
    async fn pull(&self, all: &[usize]) {
        let pulls = all.iter().map(async |n| {
            let answer = self.larder.get(&tag(*n)).await;
            let image = self.images.iter().find(|image| image.manifest == answer.body);
            let image = image.unwrap_or_else(|| panic!("{}: {} {}", name(*n), answer.status, answer.text()));
            for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
                let answer = self.larder.get(&format!("/v2/{}/blobs/{digest}", name(*n))).await;
                let is_right = answer.status == 200 && answer.complete && answer.body == *content;
                assert!(is_right, "{digest}: {} {}", answer.status, answer.text());
            }
        });
        Box::pin(join_all(pulls)).await;
    }

    async fn range(&self, n: usize) {
        self.larder.get(&tag(n)).await;
        let (digest, content) = self.images[self.tags[n]].layer(0);
        let call = Call::get(&format!("/v2/{}/blobs/{digest}", name(n))).header("Range", "bytes=100-10099");
        let answer = call.send(self.larder.mirror()).await;
        assert_eq!((answer.status, &answer.body[..]), (206, &content[100..10_100]));
    }

    async fn operate(&self, path: &str) -> (u16, Value) {
        let call = Call::new("DELETE", path).header("X-Larder-Request", "1");
        let answer = call.send(self.larder.admin()).await;
        (answer.status, if answer.status == 200 { answer.json() } else { Value::Null })
    }

    async fn remove(&self, n: usize) {
        self.larder.until_indexed().await;
        let links = self.links("cached");
        let (status, told) = self.operate(&format!("/api/images?image={}", name(n))).await;
        let is_known = |digest: &Value| {
            let digest: Digest = digest.as_str().unwrap().parse().unwrap();
            self.images.iter().find(|image| image.digest() == digest).unwrap()
        };
        match status {
            200 => {
                assert!(!self.pinned.contains(&n), "what is pinned was removed");
                let (images, begun) = (told["digests"].as_array().unwrap().iter().map(is_known), Instant::now());
                let digests = images.flat_map(|image| image.blob_digests().into_iter().chain([image.digest()]));
                let digests: Vec<Digest> = digests.filter(|digest| links.contains_key(digest)).collect();
                let removed = told["blobs"].as_u64().unwrap() as usize;
                // What is pinned is fetched by itself: some of this may just be on its way to an image that needs it, too. And
                // where an index is late, what nobody holds stays for now, and is not told of.
                loop {
                    let (nobodys, left) = self.nobodys(&digests);
                    if left == 0 || left + removed <= nobodys {
                        break;
                    }
                    assert!(begun.elapsed() < PATIENCE, "{left} are left: {told}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            404 => {}
            409 => assert!(self.pinned.contains(&n)),
            other => panic!("{other}: {told}"),
        }
    }

    /// How many of these no repository holds, and how many of those are here all the same.
    fn nobodys(&self, digests: &[Digest]) -> (usize, usize) {
        let (cached, hosted) = (self.links("cached"), self.links("hosted"));
        let is_held = |digest: &&Digest| cached.contains_key(*digest) || hosted.contains_key(*digest);
        let nobodys: Vec<&Digest> = digests.iter().filter(|digest| !is_held(digest)).collect();
        (nobodys.len(), nobodys.iter().filter(|digest| self.file(digest).exists()).count())
    }

    /// One bit becomes another while the server is down; what is done about it is done before it is asked for.
    async fn rot(&mut self, n: usize) {
        self.larder.stop().await;
        let (image, hosted) = (&self.images[n], self.links("hosted"));
        let digests = [image.layer(0).0, image.layer(2).0, image.digest()];
        // What is ours can be had nowhere else.
        for digest in digests.iter().filter(|digest| !hosted.contains_key(digest)) {
            if let Ok(file) = fs::File::options().read(true).write(true).open(self.file(digest)) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, 77).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], 77).unwrap();
            }
        }
        self.larder.start().await;
        let call = Call::new("POST", "/api/scrub?repair=true").header("X-Larder-Request", "1");
        assert_eq!(call.send(self.larder.admin()).await.status, 202);
        while get(self.larder.admin(), "/api/scrub").await.json()["running"] == true {
            tokio::task::yield_now().await;
        }
        self.larder.until_idle().await;
        for (path, content) in files(&self.larder.data().join("blobs/sha256")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Ok(digest) = format!("sha256:{name}").parse::<Digest>() {
                assert!(digest.matches(&content), "{digest} is still damaged");
            }
        }
    }

    /// What is offered now is there whole, although nobody can be asked.
    async fn outage(&self) {
        self.hub.stop().await;
        // Until it is known, a young tag is served as on any day.
        until_out_of_order(&self.larder, "/v2/library/unknown/manifests/latest").await;
        for n in 0..IMAGES {
            let answer = self.larder.get(&tag(n)).await;
            if answer.status != 200 {
                assert!(!self.stay.contains(&n), "what is pinned is not offered: {}", answer.text());
                continue;
            }
            let image = self.images.iter().find(|image| image.manifest == answer.body).unwrap();
            for (digest, content) in image.blob_digests().iter().zip(&image.blobs) {
                let answer = self.larder.get(&format!("/v2/{}/blobs/{digest}", name(n))).await;
                let is_right = answer.status == 200 && answer.body == *content;
                assert!(is_right, "image {n} is offered, and {digest} is {}: {}", answer.status, answer.text());
            }
        }
        self.hub.start_again().await;
        self.larder.until_up().await;
    }

    /// What the files of links say that the repositories of a half hold: how many hold each.
    fn links(&self, half: &str) -> HashMap<Digest, usize> {
        let mut links = HashMap::new();
        for path in paths(&self.larder.data().join(half)) {
            if path.parent().is_some_and(|parent| parent.ends_with("_links")) {
                let name = path.file_name().unwrap().to_str().unwrap().replacen('-', ":", 1);
                *links.entry(name.parse().unwrap()).or_default() += 1;
            }
        }
        links
    }

    async fn counted(&self) -> u64 {
        self.larder.metric("larder_cache_bytes", "kind=\"cached\"").await as u64
    }

    async fn released(&self) -> u64 {
        self.larder.metric("larder_released_bytes", "").await as u64
    }

    /// Bytes of disk that blobs take.
    fn on_disk(&self) -> OnDisk {
        let (hosted, cached, mut bytes) = (self.links("hosted"), self.links("cached"), OnDisk::default());
        let blocks = |length: u64| length.div_ceil(4096) * 4096;
        for path in paths(&self.larder.data().join("blobs")) {
            // It may just have gone.
            let length = fs::metadata(&path).map_or(0, |file| file.len());
            let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap().trim_end_matches(".crc"));
            let digest = digest.parse().unwrap();
            *(match () {
                () if hosted.contains_key(&digest) => &mut bytes.hosted,
                () if cached.contains_key(&digest) => &mut bytes.cached,
                () => &mut bytes.nobodys,
            }) += blocks(length);
        }
        bytes
    }

    pub(super) async fn check(&self) {
        let data = self.larder.data();
        let (on_disk, OnDisk { hosted, nobodys, .. }) = (used(&data), self.on_disk());
        // What was deleted and not collected yet is not the cache's to remove before its time. A start counts it.
        let counted = self.counted().await;
        assert!(counted <= CAP + nobodys, "{counted} bytes are counted, {nobodys} are nobody's");
        let limit = CAP + hosted + nobodys;
        assert!(on_disk <= limit, "{on_disk} bytes on disk, {hosted} of them hosted, {nobodys} nobody's");
        self.assert_counts_agree().await;
        for n in 0..OURS {
            if self.pushed.contains(&n) {
                self.remote(n).assert_pulls("v1", &self.ours[n]).await;
            } else {
                assert_eq!(self.remote(n).get("manifests/v1").await.status, 404);
            }
        }
        for n in &self.stay {
            assert!(self.is_here(&self.images[self.tags[*n]]), "image {n} is pinned, and gone");
        }
    }

    /// The account is what the disk says. Whoever makes room may be at work: then it is so as soon as that is done.
    async fn assert_counts_agree(&self) {
        let begun = Instant::now();
        loop {
            let account = async || self.counted().await + self.released().await;
            let (before, OnDisk { cached, nobodys, .. }, after) = (account().await, self.on_disk(), account().await);
            if before == cached + nobodys && after == before {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{after} bytes are counted, and {cached} and {nobodys} are there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is told of what is here is what an index says that knows the files alone.
    pub(super) async fn assert_index_is_right(&mut self) {
        let mut before = self.told().await;
        self.larder.restart_without_index().await;
        let mut after = self.told().await;
        if before != after {
            // Something pinned was just being fetched. In the minute after a start nothing is.
            self.larder.restart_without_index().await;
            (before, after) = (after, self.told().await);
        }
        assert_eq!(before, after);
    }

    async fn told(&self) -> Vec<Value> {
        self.larder.until_indexed().await;
        let mut images = get(self.larder.admin(), "/api/images").await.json().as_array().unwrap().clone();
        for image in &mut images {
            // Recency is the index's alone, and with it what has just come and may be someone's soon.
            let all = image["bytes"].as_u64().unwrap() + image["shared_bytes"].as_u64().unwrap();
            image["all"] = all.into();
            for key in ["bytes", "shared_bytes", "last_used", "stale"] {
                image.as_object_mut().unwrap().remove(key);
            }
        }
        images
    }
}
