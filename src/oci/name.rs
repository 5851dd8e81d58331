//! What things are called: registries, repositories, tags, references.
//!
//! Grammar of the OCI distribution specification, "Pulling manifests". Each type is checked once, when it is made;
//! every component of a valid name is a plain file name (no `.`, `..`, `/`, NUL), and repository components never begin
//! with an underscore, so directories of ours that do cannot collide with them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use thiserror::Error;

use super::digest::{Digest, DigestError};

/// Longest repository name in bytes; many clients limit host and name together to it.
pub const MAX_NAME: usize = 255;
/// Longest tag in bytes.
pub const MAX_TAG: usize = 128;

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "not a repository name: lower-case letters and digits, joined by one of . _ __ or dashes, in components \
         separated by /, at most 255 bytes"
    )]
    Repository,
    /// Not a tag.
    #[error("not a tag: letters, digits, and after the first character . _ -, at most 128")]
    Tag,
    /// Not a registry host.
    #[error("not a registry: write it as host or host:port, in lower case")]
    Registry,
    /// A reference with a colon that is no digest.
    #[error("not a reference: {0}")]
    Digest(DigestError),
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr, $error:expr) => {
        $(#[$doc])*
        // Shared: a request hands its names on to everything that it meets.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<$name, NameError> {
                if $check(text) { Ok($name(text.into())) } else { Err($error) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

text_type!(
    /// A repository's name within its registry: `library/alpine`.
    RepoName, is_repo_name, NameError::Repository
);
text_type!(
    /// A tag: `3.20`.
    Tag, is_tag, NameError::Tag
);
text_type!(
    /// What clients call a registry: `docker.io`, `ghcr.io`, `registry.local:5001`. Always a lower-case host with an
    /// optional port, never a URL.
    Registry, is_registry, NameError::Registry
);

impl RepoName {
    /// The components, in order; there is at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Splits off the first component, if another follows.
    pub fn split_first(&self) -> Option<(&str, RepoName)> {
        let (first, rest) = self.0.split_once('/')?;
        Some((first, RepoName(rest.into())))
    }

    /// This name below `parent`: `alpine` in `library` is `library/alpine`.
    ///
    /// # Errors
    /// The joined name is too long.
    pub fn within(&self, parent: &str) -> Result<RepoName, NameError> {
        format!("{parent}/{self}").parse()
    }
}

/// A repository together with the registry it lives in. Two registries' repositories of one name are two repositories.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// Whose it is.
    pub registry: Registry,
    /// What it is called there.
    pub name: RepoName,
}

impl FromStr for Repository {
    type Err = NameError;

    /// The reverse of its `Display`: all of the text up to the first `/` is the registry.
    fn from_str(text: &str) -> Result<Repository, NameError> {
        let (registry, name) = text.split_once('/').ok_or(NameError::Registry)?;
        Ok(Repository { registry: registry.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a manifest is asked for by: a colon decides.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reference {
    /// By name; what it means may change.
    Tag(Tag),
    /// By content; what it means never changes.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Reference, NameError> {
        if text.contains(':') {
            text.parse().map(Reference::Digest).map_err(NameError::Digest)
        } else {
            text.parse().map(Reference::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

fn is_repo_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('/').all(is_repo_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_repo_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(first) || !is_word(last) {
        return false;
    }
    bytes
        .split(|&b| is_word(b))
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG).contains(&text.len())
        && is_word(text.as_bytes()[0])
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 200
        && host.split('.').all(label)
        && port.is_none_or(|port| {
            !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_grammar_of_the_specification_is_kept() {
        for good in
            ["a", "library/alpine", "a.b/c_d/e__f/g-h/i---j", "manifests/blobs/tags/list", "0/1", &"a".repeat(255)]
        {
            assert!(good.parse::<RepoName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a._b",
            "_a",
            "a_",
            ".a",
            "-a",
            "a-",
            "..",
            "../a",
            "a/..",
            "a b",
            "a%2fb",
            "a\0",
            "é",
            "a:b",
            &"a".repeat(256),
        ] {
            assert_eq!(bad.parse::<RepoName>(), Err(NameError::Repository), "{bad}");
        }
        for good in ["latest", "_", "1.0", "A-b_c.d", "__x..y", &"t".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a b", "a:b", "a\n", &"t".repeat(129)] {
            assert_eq!(bad.parse::<Tag>(), Err(NameError::Tag), "{bad}");
        }
        for good in ["docker.io", "localhost", "localhost:5000", "127.0.0.1:1", "my-registry.example"] {
            assert!(good.parse::<Registry>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "Docker.io",
            "a..b",
            "docker.io/",
            "docker.io@evil",
            "http://a",
            "[::1]",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1:2",
            "-a",
            "..",
            "docker.io%00",
        ] {
            assert_eq!(bad.parse::<Registry>(), Err(NameError::Registry), "{bad}");
        }
    }

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        let digest = Digest::sha256(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert_eq!("sha256:no".parse::<Reference>(), Err(NameError::Digest(DigestError::Malformed)));
    }

    #[test]
    fn a_single_component_moves_below_its_parent() {
        let alpine: RepoName = "alpine".parse().unwrap();
        assert_eq!(alpine.split_first(), None);
        let full = alpine.within("library").unwrap();
        assert_eq!(full.as_str(), "library/alpine");
        assert_eq!(full.split_first(), Some(("library", alpine)));
    }

    proptest! {
        // The specification's own expression, run by another engine, is the oracle.
        #[test]
        fn names_from_the_grammar_parse(name in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}){0,4}") {
            prop_assert!(name.parse::<RepoName>().is_ok());
        }

        #[test]
        fn tags_from_the_grammar_parse(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert!(tag.parse::<Tag>().is_ok());
        }

        #[test]
        fn no_name_leaves_its_directory(text in "[a-z0-9._/%\\\\-]{0,40}") {
            if let Ok(name) = text.parse::<RepoName>() {
                for component in name.components() {
                    prop_assert!(!component.is_empty() && !component.starts_with(['.', '_']) && !component.contains('/'));
                }
            }
        }
    }
}
