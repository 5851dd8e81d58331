//! A store of very many blobs serves as one of few: start, memory, hits. `just large-store` measures a million; here it is
//! held that nothing of it is lost, and that an orderly start takes none of it into memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::support::binary::Binary;
use crate::support::client::{Call, Connection};

/// Bytes of each blob: holes, which take no room.
const SIZE: u64 = 100_000;
/// Blobs of one repository.
const EACH: usize = 500;
/// How long an index of very many may take to be made.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Figures are for a person who runs this with `--nocapture`.
macro_rules! say {
    ($($what:tt)*) => {
        #[allow(clippy::print_stderr)]
        {
            eprintln!($($what)*)
        }
    };
}

/// Where each blob can be asked for.
type Paths = Vec<String>;

/// Writes a data directory with `count` blobs, as the layout has it, and without an index.
fn generate(data: &Path, count: usize) -> Paths {
    let mut random = SmallRng::seed_from_u64(count as u64);
    fs::create_dir_all(data).unwrap();
    fs::write(data.join("VERSION"), "larder data directory, layout 1\n").unwrap();
    for first in 0..=255u8 {
        fs::create_dir_all(data.join(format!("blobs/sha256/{first:02x}"))).unwrap();
    }
    let link = format!("{{\"size\":{SIZE}}}");
    let link = format!("{:08x} {link}\n", crc32fast::hash(link.as_bytes()));
    let mut paths = Vec::new();
    for number in 0..count {
        let repository = format!("team/app{}", number / EACH);
        let links = data.join("cached/docker.io").join(&repository).join("_links");
        if number % EACH == 0 {
            fs::create_dir_all(&links).unwrap();
        }
        let hex: String = (0..4).map(|_| format!("{:016x}", random.random::<u64>())).collect();
        let blob = File::create_new(data.join("blobs/sha256").join(&hex[..2]).join(&hex)).unwrap();
        blob.set_len(SIZE).unwrap();
        fs::write(links.join(format!("sha256-{hex}")), &link).unwrap();
        paths.push(format!("/v2/{repository}/blobs/sha256:{hex}"));
    }
    paths
}

struct Figures {
    start: Duration,
    indexed: Duration,
    resident: f64,
    first_hit: Duration,
    hit: Duration,
}

async fn metrics(admin: SocketAddr) -> BTreeMap<String, f64> {
    let page = Call::get("/metrics").send(admin).await.text();
    let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// Waits until the index knows so many blobs, and says what is in memory then, in bytes.
async fn until_indexed(admin: SocketAddr, count: usize) -> f64 {
    let before = Instant::now();
    loop {
        let known = metrics(admin).await;
        if known["larder_cache_blobs{kind=\"cached\"}"] == count as f64 && known["larder_index_state"] == 0.0 {
            return known["process_resident_memory_bytes"];
        }
        assert!(before.elapsed() < PATIENCE, "{known:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts on what is there, asks for a thousand blobs once and again, and stops in good order.
async fn measure(home: &Path, config: &str, paths: &Paths) -> Figures {
    let before = Instant::now();
    let larder = Binary::start(home, config, "warn,larder::app=info");
    let start = before.elapsed();
    let resident = until_indexed(larder.admin, paths.len()).await;
    let indexed = before.elapsed();
    assert_eq!(metrics(larder.admin).await["larder_index_rebuilds_total"], 0.0, "no file was looked at");
    let mut random = SmallRng::seed_from_u64(1);
    let wanted: Vec<&String> = paths.sample(&mut random, 1000).collect();
    let mut connection = Connection::open(larder.mirror).await.unwrap();
    let mut medians = [Duration::ZERO; 2];
    for median in &mut medians {
        let mut times = Vec::new();
        for path in &wanted {
            let call = Call::get(path).header("Range", "bytes=0-9");
            let before = Instant::now();
            let answer = connection.call(&call).await;
            times.push(before.elapsed());
            assert_eq!((answer.status, answer.header("x-larder-cache"), answer.body.len()), (206, Some("hit"), 10));
        }
        times.sort_unstable();
        *median = times[times.len() / 2];
    }
    let resident = resident.max(metrics(larder.admin).await["process_resident_memory_bytes"]);
    larder.terminate();
    assert!(larder.ended().success());
    Figures { start, indexed, resident, first_hit: medians[0], hit: medians[1] }
}

async fn figures(count: usize) -> Figures {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let before = Instant::now();
    let paths = generate(&data, count);
    say!("{count} blobs: made in {:.1?}", before.elapsed());
    let config = format!(
        "data_dir = {data:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\"\n"
    );
    // The first session makes the index from the files, while hits are served.
    let before = Instant::now();
    let larder = Binary::start(home.path(), &config, "info");
    let start = before.elapsed();
    assert_eq!(Call::head(&paths[count / 2]).send(larder.mirror).await.status, 200, "files are the truth");
    let resident = until_indexed(larder.admin, count).await / f64::from(1 << 20);
    say!("  without an index: {start:.2?} to start, {:.1?} until there is one, {resident:.0} MiB", before.elapsed());
    larder.terminate();
    assert!(larder.ended().success());
    let figures = measure(home.path(), &config, &paths).await;
    let resident = figures.resident / f64::from(1 << 20);
    say!("  with it: {:.2?} to start, {:.2?} until it is open, {resident:.0} MiB", figures.start, figures.indexed);
    say!("  hits: {:.0?} the first of a blob, {:.0?} the next", figures.first_hit, figures.hit);
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_very_many_blobs_starts_and_serves_as_one_of_few() {
    let count = std::env::var("LARDER_STORE_BLOBS").map_or(20_000, |count| count.parse().unwrap());
    let (few, many) = (figures(1000).await, figures(count).await);
    assert!(many.resident < f64::from(200 << 20), "{} bytes in memory", many.resident);
    if count > 100_000 {
        say!("{:.2} times the time for a hit", many.hit.as_secs_f64() / few.hit.as_secs_f64());
    }
}
