//! A working set ten times as large as the limit, at random: the limit holds at every moment, every pull is right, and the
//! share of hits is printed beside that of a cache that knows blobs and no images (`--nocapture`).
//!
//! `LARDER_WORKING_SET` is the limit in MiB, 4 unless said otherwise: `just soak` takes 1024, so 10 GiB of images.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::oci::Digest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::hub::Hub;
use crate::support::image::{Image, noise};
use crate::support::larder::{Larder, assert_sound, used};

/// Figures are for a person who runs this with `--nocapture`.
macro_rules! say {
    ($($what:tt)*) => {
        #[allow(clippy::print_stderr)]
        {
            eprintln!($($what)*)
        }
    };
}

/// What evicts single blobs, the least recently used first, would have had.
#[derive(Default)]
struct Blobs {
    last: HashMap<Digest, (u64, u64)>,
    used: u64,
    now: u64,
}

impl Blobs {
    /// Whether it is here; afterwards it is.
    fn ask(&mut self, digest: Digest, size: u64, limit: u64) -> bool {
        self.now += 1;
        let size = size.div_ceil(4096) * 4096;
        if let Some((_, at)) = self.last.get_mut(&digest) {
            *at = self.now;
            return true;
        }
        while self.used + size > limit {
            let (oldest, (size, _)) =
                self.last.iter().min_by_key(|(_, (_, at))| *at).map(|(it, of)| (*it, *of)).unwrap();
            self.last.remove(&oldest);
            self.used -= size;
        }
        self.used += size;
        self.last.insert(digest, (size, self.now));
        false
    }
}

/// Families of ten images that share a base of two layers, as releases of one thing do.
fn image(n: usize, unit: usize) -> Image {
    let family = (n / 10) as u64;
    let layers: Vec<Bytes> = vec![
        noise(90_000 + family, unit),
        noise(91_000 + family, unit / 4),
        noise(92_000 + n as u64, unit / 3),
        noise(192_000 + n as u64, 900),
    ];
    Image::of_layers(n, layers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_limit_goes_through_it_and_never_over_it() {
    let limit = std::env::var("LARDER_WORKING_SET").map_or(4, |limit| limit.parse::<u64>().unwrap()) << 20;
    let pulls = 200;
    // A family takes 1.25 bases and ten times a third.
    let (images, unit) = (200, (limit * 10 / 20 * 10 / 46) as usize);
    let hub = Hub::plain().await;
    let cache = format!("max_size = \"{limit}B\"\nmin_free = \"0\"\n");
    let larder = Larder::configured(&hub, &cache, "").await;
    let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sampler = {
        let (stop, most, data) = (stop.clone(), most.clone(), larder.data());
        std::thread::spawn(move || {
            let mut samples = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let begun = Instant::now();
                most.fetch_max(used(&data), Ordering::SeqCst);
                samples += 1;
                // A look takes as long as there are files: most of the core is for what is tried.
                std::thread::sleep(begun.elapsed() * 4);
            }
            samples
        })
    };
    let mut random = StdRng::seed_from_u64(11);
    let (mut blobs, mut hits, mut theirs, mut asked) = (Blobs::default(), 0u64, 0u64, 0u64);
    let (mut bytes, mut hit_bytes, mut their_bytes) = (0u64, 0u64, 0u64);
    for _ in 0..pulls {
        // Few are pulled often, many seldom.
        let n = (random.random::<f64>().powi(3) * f64::from(images)) as usize;
        let (name, image) = (format!("library/w{n}"), image(n, unit));
        hub.push(&name, "latest", &image);
        let digests = image.blob_digests();
        hub.clear();
        let answer = larder.get(&format!("/v2/{name}/manifests/latest")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]), "{}", answer.text());
        blobs.ask(image.digest(), image.manifest.len() as u64, limit);
        for (digest, content) in digests.iter().zip(&image.blobs) {
            let answer = larder.get(&format!("/v2/{name}/blobs/{digest}")).await;
            assert!(answer.status == 200 && answer.complete && answer.body == *content, "{digest}: {}", answer.status);
        }
        larder.until_idle().await;
        for (digest, content) in digests.iter().zip(&image.blobs) {
            let (size, is_hit) = (content.len() as u64, hub.bytes_sent(digest) == 0);
            let would_be = blobs.ask(*digest, size, limit);
            asked += 1;
            bytes += size;
            hits += u64::from(is_hit);
            theirs += u64::from(would_be);
            hit_bytes += if is_hit { size } else { 0 };
            their_bytes += if would_be { size } else { 0 };
        }
        // What upstream holds is not what is measured: it need not stay in memory.
        for digest in digests {
            hub.remove_blob(&name, digest);
        }
        larder.clock.advance(Duration::from_secs(30));
    }
    stop.store(true, Ordering::SeqCst);
    let samples = sampler.join().unwrap();
    let most = most.load(Ordering::SeqCst);
    let share = |part: u64, of: u64| part as f64 * 100.0 / of as f64;
    say!("{pulls} pulls of {images} images through {limit} bytes; {samples} samples, at most {most} bytes");
    say!("  hits: {:.1} % of blobs, {:.1} % of bytes", share(hits, asked), share(hit_bytes, bytes));
    say!("  with blobs alone: {:.1} % of blobs, {:.1} % of bytes", share(theirs, asked), share(their_bytes, bytes));
    assert!(most <= limit, "{most} of {limit}");
    assert!(hits > 0 && larder.metric("larder_cache_evictions_total", "").await > 10.0);
    assert_sound(&larder.data());
}
