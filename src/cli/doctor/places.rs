//! Certificates in the folders where engines look for them: those of authorities, and the engine's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::certificates::{Chain, in_file};
use super::facts::{Authority, Passport};

/// Those in `folder` that end like one, and whether they vouch for the mirror.
pub(super) fn authorities(folder: &Path, chain: Option<&Chain>, now: SystemTime) -> Vec<Authority> {
    named(&ending_in("crt", folder), chain, now)
}

/// The engine's own in `folder`: a `.cert` and the `.key` beside it.
pub(super) fn passports(folder: &Path) -> Vec<Passport> {
    let certs = ending_in("cert", folder).into_iter();
    certs.map(|cert| Passport { key: cert.with_extension("key"), cert, lets_in: false }).collect()
}

fn ending_in(wanted: &str, folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == wanted)).collect();
    paths.sort();
    paths
}

/// The same of files that a configuration names.
pub(super) fn named(paths: &[PathBuf], chain: Option<&Chain>, now: SystemTime) -> Vec<Authority> {
    let vouches = |path: &Path| chain.is_some_and(|chain| chain.judged_by(in_file(path), now).is_ok());
    paths.iter().map(|path| Authority { path: path.clone(), vouches: vouches(path) }).collect()
}
