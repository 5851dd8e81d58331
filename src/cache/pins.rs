//! Which images stay whatever happens: those that the configuration names, and those that the operator pinned while the
//! server ran, which stand in a file. Never says what goes instead.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;
use tokio::sync::Notify;

use crate::oci::{Digest, Reference, Repository, Tag};
use crate::storage::{StorageError, Store};

/// Patterns that the file takes: each is asked about each tag when room is made.
pub const MAX_PINS: usize = 1000;
/// Longest pattern, in bytes: a name, a tag, and some.
const MAX_PATTERN: usize = 512;

/// Why something is not pinned, or stays pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// It is no pattern.
    #[error("{0:?} is no pattern; write it like library/alpine:3.20, library/alpine:* or ghcr.io/team/**")]
    NoPattern(String),
    /// There are so many already.
    #[error("{MAX_PINS} patterns are pinned already: unpin some, or pin with a pattern that covers several")]
    TooMany,
    /// It stands in the configuration.
    #[error("{0} is pinned by the configuration: take it out of `pin` in [cache], and restart the server")]
    Configured(String),
    /// The file cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Names that are kept whatever happens: `library/alpine:3.20`, with or without their registry. Clones share them.
#[derive(Clone)]
pub struct Pins {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    configured: Vec<String>,
    // Held while the file is written: what covers is what is durable.
    now: RwLock<Now>,
    changed: Notify,
}

#[derive(Default)]
struct Now {
    ours: Vec<String>,
    patterns: GlobSet,
}

impl Pins {
    /// What the configuration names, and what stands in the store's file. A file that cannot be read pins nothing, and an
    /// error is logged: the server starts all the same.
    ///
    /// # Errors
    /// The configuration's patterns are too large together.
    pub fn open(store: Store, configured: Vec<String>) -> Result<Pins, globset::Error> {
        let mut ours = store.pins().unwrap_or_else(|error| {
            tracing::error!(%error, "what was pinned is not known any more: pin it again");
            Vec::new()
        });
        let patterns = compile(configured.iter().chain(&ours)).or_else(|error| {
            tracing::error!(%error, "what stands in the file of pins is no pattern: pin it again");
            ours.clear();
            compile(configured.iter())
        })?;
        let now = RwLock::new(Now { ours, patterns });
        Ok(Pins { inner: Arc::new(Inner { store, configured, now, changed: Notify::new() }) })
    }

    /// The patterns of the configuration.
    pub fn configured(&self) -> &[String] {
        &self.inner.configured
    }

    /// The patterns of the operator, in the order in which they came.
    pub fn ours(&self) -> Vec<String> {
        self.now().ours.clone()
    }

    /// Keeps what `pattern` covers from now on. Says whether it was not pinned yet. Blocks on the disk.
    ///
    /// # Errors
    /// It is no pattern, there are too many, or the disk fails: nothing has changed then.
    pub fn add(&self, pattern: &str) -> Result<bool, PinError> {
        self.change(|ours| {
            if pattern.len() > MAX_PATTERN || glob(pattern).is_err() {
                return Err(PinError::NoPattern(pattern.chars().take(80).collect()));
            }
            if ours.iter().chain(&self.inner.configured).any(|known| known == pattern) {
                return Ok(false);
            }
            if ours.len() >= MAX_PINS {
                return Err(PinError::TooMany);
            }
            ours.push(pattern.to_owned());
            Ok(true)
        })
    }

    /// Lets go what only `pattern` kept. Says whether it was pinned. Blocks on the disk.
    ///
    /// # Errors
    /// It stands in the configuration, or the disk fails: nothing has changed then.
    pub fn remove(&self, pattern: &str) -> Result<bool, PinError> {
        self.change(|ours| {
            let before = ours.len();
            ours.retain(|known| known != pattern);
            match ours.len() < before {
                false if self.inner.configured.iter().any(|known| known == pattern) => {
                    Err(PinError::Configured(pattern.to_owned()))
                }
                is_gone => Ok(is_gone),
            }
        })
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.now().patterns.is_empty()
    }

    /// Whether an image is kept: by one of its tags, or by its digest.
    pub fn cover(&self, repository: &Repository, tags: &[Tag], root: &Digest) -> bool {
        let now = self.now();
        tags.iter().any(|tag| now.covers(repository, &format_args!(":{tag}")))
            || now.covers(repository, &format_args!("@{root}"))
    }

    /// Whether what a repository's tag or digest means is kept, because it is that which is pinned.
    pub fn cover_reference(&self, repository: &Repository, reference: &Reference) -> bool {
        match reference {
            Reference::Tag(tag) => self.now().covers(repository, &format_args!(":{tag}")),
            Reference::Digest(digest) => self.now().covers(repository, &format_args!("@{digest}")),
        }
    }

    /// What is named to the last letter: an image that is to be here whether or not anyone has asked for it.
    pub fn named(&self) -> Vec<(Repository, Reference)> {
        self.inner.configured.iter().chain(&self.now().ours).filter_map(|pattern| named(pattern)).collect()
    }

    /// Returns when something was pinned, or not any more, since it last returned. For one who waits.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<String>) -> Result<bool, PinError>) -> Result<bool, PinError> {
        let mut now = self.inner.now.write().unwrap_or_else(PoisonError::into_inner);
        let mut ours = now.ours.clone();
        if !edit(&mut ours)? {
            return Ok(false);
        }
        let patterns = compile(self.inner.configured.iter().chain(&ours));
        let patterns = patterns.map_err(|error| PinError::NoPattern(error.to_string()))?;
        self.inner.store.set_pins(&ours)?;
        *now = Now { ours, patterns };
        self.inner.changed.notify_one();
        Ok(true)
    }

    fn now(&self) -> RwLockReadGuard<'_, Now> {
        self.inner.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn covers(&self, repository: &Repository, rest: &dyn fmt::Display) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let short = format!("{}{rest}", repository.name);
        self.patterns.is_match(&short) || self.patterns.is_match(format!("{}/{short}", repository.registry))
    }
}

/// The one image that a pattern means: `docker.io/library/alpine:3.20`, or with a digest.
fn named(pattern: &str) -> Option<(Repository, Reference)> {
    let (registry, rest) = pattern.split_once('/')?;
    let (name, reference) = match rest.split_once('@') {
        Some((name, digest)) => (name, Reference::Digest(digest.parse().ok()?)),
        None => rest.rsplit_once(':').and_then(|(name, tag)| Some((name, Reference::Tag(tag.parse().ok()?))))?,
    };
    Some((Repository { registry: registry.parse().ok()?, name: name.parse().ok()? }, reference))
}

fn compile<'a>(patterns: impl Iterator<Item = &'a String>) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(glob(pattern)?);
    }
    set.build()
}

/// As in the configuration: `*` ends at a slash, and `**` is any number of components, also where a tag follows it.
fn glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(&pattern.replace("**:", "**/*:")).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stars_are_names_of_any_depth() {
        let covers = |pattern: &str, name: &str| glob(pattern).unwrap().compile_matcher().is_match(name);
        for name in ["team/a:v1", "team/a/b/c:v1"] {
            assert!(covers("team/**:v1", name) && covers("**:*", name) && covers("team/**", name), "{name}");
        }
        assert!(
            covers("team/*:*", "team/a:v1")
                && !covers("team/*:*", "team/a/b:v1")
                && !covers("team/**:v1", "other/a:v1")
        );
    }

    #[test]
    fn only_what_is_written_out_names_an_image() {
        let meant = |pattern: &str| named(pattern).map(|(repository, reference)| format!("{repository} {reference}"));
        let digest = Digest::sha256(b"x");
        assert_eq!(meant("docker.io/library/alpine:3.20").as_deref(), Some("docker.io/library/alpine 3.20"));
        assert_eq!(meant("registry.lan:5000/a:v1").as_deref(), Some("registry.lan:5000/a v1"));
        assert_eq!(meant(&format!("ghcr.io/a/b@{digest}")), Some(format!("ghcr.io/a/b {digest}")));
        for pattern in
            ["docker.io/library/alpine:*", "docker.io/**", "docker.io/library/al?ine:3", "alpine:3.20", "a/b"]
        {
            assert_eq!(meant(pattern), None, "{pattern}");
        }
    }
}
