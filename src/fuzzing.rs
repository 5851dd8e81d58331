//! Every parser of outside input, by name, for `just fuzz`. Not part of the program: it is compiled for tests and by
//! cargo-fuzz only (`--cfg fuzzing`), which keeps the parsers themselves private to their rooms.
//!
//! Each takes any bytes. It must not panic, and what it accepts must hold what its type promises.

use crate::backup::Listing;
use crate::oci::{Digest, Manifest, RangeHeader, Reference, RepoName, Tag};
use crate::oci_layout::Index;

/// Throws bytes at one parser.
pub type Throw = fn(&[u8]);

/// The parsers. `fuzz/fuzz_targets` has a program for each, `fuzz/corpus` what each begins with.
pub const TARGETS: [(&str, Throw); 16] = [
    ("names", |bytes| as_text(bytes, names)),
    ("digests", |bytes| as_text(bytes, digests)),
    ("endpoint", |bytes| as_text(bytes, crate::http::fuzzing::endpoint)),
    ("range", |bytes| as_text(bytes, range)),
    ("manifest", manifest),
    ("content_range", crate::upstream::fuzzing::content_range),
    ("challenge", crate::upstream::fuzzing::challenge),
    ("link", crate::upstream::fuzzing::link),
    ("token_answer", crate::upstream::fuzzing::token_answer),
    ("small_file", crate::storage::fuzzing::small_file),
    ("config", |bytes| as_text(bytes, crate::config::fuzzing::file)),
    ("scope", |bytes| as_text(bytes, crate::access::fuzzing::scope)),
    ("htpasswd", |bytes| as_text(bytes, crate::access::fuzzing::htpasswd)),
    ("authorization", crate::access::fuzzing::authorization),
    ("token_request", crate::access::fuzzing::token_request),
    ("backup_index", backup_index),
];

/// Throws bytes at the parser of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    assert!(found.is_some(), "there is no target {name}");
    if let Some((_, throw)) = found {
        throw(bytes);
    }
}

fn as_text(bytes: &[u8], throw: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        throw(text);
    }
}

fn names(text: &str) {
    if let Ok(name) = text.parse::<RepoName>() {
        assert!(
            name.components().all(|part| !part.is_empty() && !part.starts_with(['.', '_']) && !part.contains('\0'))
        );
        assert_eq!(name.as_str(), text);
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert!(!tag.as_str().starts_with('.') && !tag.as_str().contains('/'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
}

fn digests(text: &str) {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_hash(digest.algorithm(), digest.bytes()), Some(digest));
    }
}

fn range(text: &str) {
    let Ok(range) = text.parse::<RangeHeader>() else { return };
    for size in [0, 1, 1000, u64::MAX] {
        if let Some(part) = range.of(size) {
            assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
        }
    }
}

fn backup_index(bytes: &[u8]) {
    let listing = |index: &Index| Listing::read(index).ok().map(|listing| listing.to_index().manifests);
    if let Ok(index) = Index::from_json(bytes)
        && let Ok(read) = Listing::read(&index)
    {
        let again = Index::from_json(&read.to_index().to_json());
        assert_eq!(again.ok().as_ref().and_then(listing), Some(read.to_index().manifests));
    }
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let _ = manifest.blobs().filter(|blob| blob.is_non_distributable() || blob.is_attestation()).count();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Mutations of each seed: some seconds for all of them, on any toolchain. `just fuzz` goes further.
    const MUTATIONS: usize = 300;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(folder("corpus").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    fn mutate(seed: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.random_range(0..=255)),
                2 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
                3 if at < bytes.len() => drop(bytes.remove(at)),
                _ => {
                    let from = random.random_range(0..=other.len());
                    let piece = other[from..].iter().take(random.random_range(1..40)).copied().collect::<Vec<_>>();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }

    #[test]
    fn what_the_corpus_becomes_is_read_without_a_panic() {
        let mut random = StdRng::seed_from_u64(5);
        for (name, throw) in TARGETS {
            let seeds = corpus(name);
            assert!(seeds.len() >= 3, "{name} has next to no corpus");
            for seed in &seeds {
                throw(seed);
                for _ in 0..MUTATIONS {
                    let other = &seeds[random.random_range(0..seeds.len())];
                    throw(&mutate(seed, other, &mut random));
                }
            }
        }
    }

    #[test]
    fn every_target_has_its_program_and_is_built() {
        let wanted: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let programs = fs::read_dir(folder("fuzz_targets")).unwrap();
        let programs = programs.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
        assert_eq!(programs.collect::<BTreeSet<_>>(), wanted);
        let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
        for name in wanted {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            let program = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(program.contains(&format!("larder::fuzzing::run(\"{name}\", bytes)")), "{name}");
        }
    }
}
