//! Power cuts: a real ext4 that loses, at a random moment, all that was not synced. Afterwards the server
//! starts by itself, serves nothing wrong, and has all that it said it had.
//!
//! Needs root and loop devices; says SKIP where there are none. `LARDER_POWER_CUTS` is how many, 20 unless said otherwise.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::oci::Digest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::support::binary::Binary;
use crate::support::client::{Call, Connection};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::assert_sound;

const REPO: &str = "library/alpha";
const DISK: u64 = 512 << 20;
/// EXT4_IOC_SHUTDOWN on the directory in the first argument, with the flag in the second.
const CUT: &str = "import fcntl, os, struct, sys; \
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', int(sys.argv[2])))";

/// A file system of its own, which can lose its power.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let [told, said] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    output.status.success().then_some(told).ok_or_else(|| format!("{program} {arguments:?}: {said}"))
}

impl Disk {
    fn new(home: &Path) -> Result<Disk, String> {
        let disk = Disk { image: home.join("disk.img"), at: home.join("disk") };
        fs::create_dir(&disk.at).unwrap();
        fs::File::create(&disk.image).unwrap().set_len(DISK).unwrap();
        run("mkfs.ext4", &["-q", "-F", disk.image.to_str().unwrap()])?;
        disk.mount()?;
        Ok(disk)
    }

    /// By a device of its own: whoever made a mount namespace meanwhile holds the one before, without its power.
    fn mount(&self) -> Result<(), String> {
        let device = run("losetup", &["--find", "--show", self.image.to_str().unwrap()])?;
        let mounted = run("mount", &[&device, self.at.to_str().unwrap()]);
        // Goes when nobody has it mounted any more.
        run("losetup", &["--detach", &device])?;
        mounted.map(drop)
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[self.at.to_str().unwrap()]).map(drop)
    }

    /// 2: what is not synced is gone. 1: the journal is written first, so that names are there and bytes are not.
    fn cut(&self, flag: u32) -> Result<(), String> {
        run("python3", &["-c", CUT, self.at.to_str().unwrap(), &flag.to_string()]).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

/// What the server said that it has.
#[derive(Default)]
pub(super) struct Given {
    // Cached blobs that a client got to their end in time.
    pub(super) blobs: Vec<Vec<u8>>,
    // Pushes that were acknowledged: where, and what.
    pub(super) pushed: Vec<(String, Vec<u8>)>,
}

async fn ask(at: SocketAddr, call: Call) -> Option<crate::support::client::Answer> {
    let mut connection = Connection::open(at).await.ok()?;
    let answer = connection.call(&call).await;
    answer.complete.then_some(answer)
}

/// A pull, of which what it gets to its end counts until `over` is set: a disk that fails is no reason for the mirror not to
/// pass the rest on.
pub(super) async fn pull(mirror: SocketAddr, tag: String, image: Image, over: Arc<AtomicBool>) -> Given {
    let mut given = Given::default();
    let _ = ask(mirror, Call::get(&format!("/v2/{REPO}/manifests/{tag}"))).await;
    for (digest, blob) in image.blob_digests().into_iter().zip(&image.blobs) {
        let Some(answer) = ask(mirror, Call::get(&format!("/v2/{REPO}/blobs/{digest}"))).await else { break };
        if answer.status == 200 {
            assert_eq!(answer.body, blob[..], "complete and wrong");
            if !over.load(Ordering::SeqCst) {
                given.blobs.push(blob.to_vec());
            }
        }
    }
    given
}

pub(super) async fn push(registry: SocketAddr, tag: String, image: Image) -> Given {
    let mut given = Given::default();
    for (digest, blob) in image.blob_digests().into_iter().zip(&image.blobs) {
        let call = Call::new("POST", &format!("/v2/golden/app/blobs/uploads/?digest={digest}"));
        let call = call.header("Content-Type", "application/octet-stream").body(blob);
        if ask(registry, call).await.is_none_or(|answer| answer.status != 201) {
            return given;
        }
        given.pushed.push((format!("/v2/golden/app/blobs/{digest}"), blob.to_vec()));
    }
    let path = format!("/v2/golden/app/manifests/{tag}");
    let media_type = image.media_type.as_str();
    let call = Call::new("PUT", &path).header("Content-Type", media_type).body(&image.manifest);
    if ask(registry, call).await.is_some_and(|answer| answer.status == 201) {
        given.pushed.push((path, image.manifest.to_vec()));
    }
    given
}

fn registry(larder: &Binary) -> SocketAddr {
    let log = larder.log();
    let mut lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.find(|line| line["message"] == "serving").unwrap()["registry"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged_and_leaves_nothing_wrong() {
    let home = tempfile::tempdir().unwrap();
    let disk = match Disk::new(home.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            // Past the test harness, which keeps what a passing test prints to itself.
            let _ = writeln!(std::io::stderr(), "SKIP: no power can be cut here: {reason}");
            return;
        }
    };
    let cuts = std::env::var("LARDER_POWER_CUTS").map_or(20, |cuts| cuts.parse::<u64>().unwrap());
    let (hub, data) = (Hub::plain().await, disk.at.join("data"));
    let config = format!(
        "data_dir = {data:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [cache]\nmin_free = \"0\"\n[registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"push\"\n\
         [[registry.repository]]\npattern = \"golden/**\"\npush = [\"*\"]\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"{}\"\n",
        hub.registry_url()
    );
    let mut random = StdRng::seed_from_u64(5);
    let Given { mut blobs, mut pushed } = Given::default();
    for cut in 0..cuts {
        let larder = Binary::start(home.path(), &config, "warn,larder=info");
        let own = registry(&larder);
        assert_sound(&data);
        for blob in &blobs {
            let hex = Digest::sha256(blob).hex();
            let path = data.join("blobs/sha256").join(&hex[..2]).join(&hex);
            assert!(fs::read(&path).is_ok_and(|kept| kept == *blob), "cut {cut}: {hex} was given whole, and is lost");
        }
        for (path, content) in &pushed {
            let answer = Call::get(path).send(own).await;
            assert_eq!(
                (answer.status, answer.complete),
                (200, true),
                "cut {cut}: {path} was acknowledged, and is lost"
            );
            assert!(answer.body == *content, "cut {cut}: {path} is wrong");
        }
        // A disk of this size holds some of it; what was looked at once is looked at no more.
        blobs.drain(..blobs.len().saturating_sub(60));
        pushed.drain(..pushed.len().saturating_sub(60));
        let (mut load, over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for n in 0..3 {
            let seed = 40_000 + cut * 10 + n;
            let image = Image::oci(seed, &[400_000, 70_000, 3_000]);
            hub.push(REPO, &format!("v{seed}"), &image);
            load.spawn(pull(larder.mirror, format!("v{seed}"), image, over.clone()));
            let image = Image::oci(seed + 5, &[300_000, 70_000, 900]);
            load.spawn(push(own, format!("v{}", seed + 5), image));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..250))).await;
        over.store(true, Ordering::SeqCst);
        disk.cut(if cut % 2 == 0 { 2 } else { 1 }).unwrap();
        // A push that ends well from here on was ended before.
        while let Some(done) = load.join_next().await {
            let Given { blobs: more, pushed: more_pushed } = done.unwrap();
            blobs.extend(more);
            pushed.extend(more_pushed);
        }
        larder.kill();
        disk.unmount().unwrap();
        disk.mount().unwrap();
    }
    assert!(blobs.len() + pushed.len() > 20, "too little was acknowledged before the cuts");
}
