//! How fast the inner loops are: what runs once for each request, each 256 KiB of a fill, or each manifest.
//!
//! `just bench-loops` compares with the run before. Nothing here waits for a network, and nothing is made durable: what a
//! disk takes to sync says nothing about this code.

use std::error::Error;
use std::hint::black_box;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use larder::clock::Clock;
use larder::oci::{Algorithm, Digest, Hasher, Manifest, RangeHeader};
use larder::storage::index::{Change, Index, Metrics, Settings, Truth};
use larder::storage::{self, Store};
use prometheus::Registry;

/// What a fill writes and hashes at a time.
const BATCH: usize = 256 << 10;
/// Batches of one ingest: a layer of 16 MiB.
const BATCHES: usize = 64;
/// Blobs in the index: a well-used mirror.
const ROWS: u32 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    digests(&mut criterion);
    manifests(&mut criterion);
    ranges(&mut criterion);
    ingest(&mut criterion)?;
    index(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn digests(criterion: &mut Criterion) {
    let digest = Digest::sha256(b"content");
    let text = digest.to_string();
    let mut group = criterion.benchmark_group("digest");
    group.bench_function("parse", |bencher| bencher.iter(|| black_box(&text).parse::<Digest>()));
    group.bench_function("format", |bencher| bencher.iter(|| black_box(&digest).to_string()));
    group.finish();
}

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifest");
    // Ten layers are a usual image; the largest that is taken has 10,000, and annotations up to 4 MiB.
    for (name, layers, padding) in [("10 layers", 10, 0), ("10,000 layers, 3.6 MB", 9_999, 200)] {
        let bytes = manifest(layers, padding);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| Manifest::parse(black_box(bytes.as_bytes()))));
    }
    group.finish();
}

fn manifest(layers: usize, padding: usize) -> String {
    let descriptor = |kind: &str, n: usize| {
        let digest = Digest::sha256(&n.to_le_bytes());
        let note = "x".repeat(padding);
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","size":{n},"digest":"{digest}","annotations":{{"note":"{note}"}}}}"#
        )
    };
    let all: Vec<String> = (1..=layers).map(|n| descriptor("layer.v1.tar+gzip", n)).collect();
    let config = descriptor("config.v1+json", 0);
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, all.join(","))
}

fn ranges(criterion: &mut Criterion) {
    criterion.bench_function("range header", |bencher| {
        bencher.iter(|| black_box("bytes=1048576-2097151").parse::<RangeHeader>().map(|range| range.of(1 << 30)));
    });
}

/// What a fill does with each batch; the hash alone stands beside it, since it is the floor.
fn ingest(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let limits = storage::Limits { max_size: 1 << 40, min_free: 0 };
    let data_dir = home.path().join("data");
    let settings = storage::Settings { data_dir, index_cache: 1 << 20, limits, verify: storage::Verify::Never };
    let store = Store::open(settings, Clock::system(), &Registry::new())?;
    let batch: Vec<u8> = (0..BATCH).map(|n| (n * 31 % 251) as u8).collect();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    (0..BATCHES).for_each(|_| hasher.update(&batch));
    let digest = hasher.finish();

    let mut group = criterion.benchmark_group("ingest of 16 MiB in 256 KiB batches");
    group.throughput(Throughput::Bytes((BATCH * BATCHES) as u64)).sample_size(20);
    group.bench_function("append and hash", |bencher| {
        bencher.iter(|| {
            let (mut ingest, _room) = store.ingest(&digest)?;
            (0..BATCHES).try_for_each(|_| ingest.append(&batch))?;
            let passed = ingest.passed();
            ingest.discard();
            Ok::<u64, storage::StorageError>(passed)
        });
    });
    group.bench_function("hash alone", |bencher| {
        bencher.iter(|| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            (0..BATCHES).for_each(|_| hasher.update(black_box(&batch)));
            hasher.finish()
        });
    });
    group.finish();
    store.close();
    Ok(())
}

/// Asked on the way of every blob that is opened.
fn index(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let settings = Settings { ballast: 1 << 20, ..Settings::new(home.path().join("index")) };
    // An index that is not there is made from the files: the quickest way to a full one.
    let index = Index::open(settings, Arc::new(Imagined), Clock::system(), Metrics::new(&Registry::new()));
    let settled = index.settle(Duration::from_secs(120));
    if !settled || index.totals().blobs != u64::from(ROWS) {
        return Err(format!("the index has {:?} instead of {ROWS} blobs", index.totals()).into());
    }
    let mut group = criterion.benchmark_group("index of 100,000 blobs");
    let mut n = 0;
    group.bench_function("a blob that is there", |bencher| {
        bencher.iter(|| {
            // A step that is prime to the number of rows: every one has its turn, and no two neighbours.
            n = (n + 61_803) % ROWS;
            index.blob(&digest_of(n))
        });
    });
    group.bench_function("the digest of a row number alone", |bencher| {
        bencher.iter(|| digest_of(black_box(n)));
    });
    group.bench_function("a use that is no news", |bencher| {
        let digest = digest_of(1);
        bencher.iter(|| index.record(Change::Used { digest, at: 1 }));
    });
    group.finish();
    index.close(Duration::from_secs(30));
    Ok(())
}

/// Files that only the index believes in.
struct Imagined;

impl Truth for Imagined {
    fn walk(&self, each: &mut dyn FnMut(Change) -> ControlFlow<()>) -> io::Result<()> {
        for n in 0..ROWS {
            let change = Change::BlobStored { digest: digest_of(n), size: u64::from(n), at: 1 };
            if each(change).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Spread as digests are, and made without hashing.
fn digest_of(n: u32) -> Digest {
    let mut word = u64::from(n) + 1;
    let mut hash = [0; 32];
    for part in hash.chunks_exact_mut(8) {
        word = (word ^ (word >> 27)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        part.copy_from_slice(&word.to_be_bytes());
    }
    // 32 bytes are what SHA-256 has.
    Digest::from_hash(Algorithm::Sha256, &hash).unwrap_or(Digest::sha256(b""))
}
