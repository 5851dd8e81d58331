//! What people call an image: `alpine`, `ghcr.io/org/app:v1`, `golden/python@sha256:…`. Words only: where that is, and
//! whether `alpine` is `library/alpine`, is for the rooms above.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::digest::Digest;
use super::name::{NameError, Reference, Registry, RepoName, Tag};

/// The tag of an image that is named without one.
const LATEST: &str = "latest";

/// An image as a person wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The registry, if one was named: a first component with a dot or a colon in it, or `localhost`, as Docker has it.
    pub registry: Option<Registry>,
    /// The rest of the name.
    pub name: RepoName,
    /// The tag, if one was named.
    pub tag: Option<Tag>,
    /// The digest, if one was named; it goes before the tag.
    pub digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} names no image: {reason}; write it like alpine, ghcr.io/org/app:v1 or golden/app@sha256:…")]
pub struct ImageNameError {
    text: String,
    reason: NameError,
}

impl ImageName {
    /// What it means in its repository: the digest, else the tag, else `latest`.
    pub fn reference(&self) -> Reference {
        match &self.digest {
            Some(digest) => Reference::Digest(*digest),
            None => Reference::Tag(self.tag_or_latest()),
        }
    }

    /// The tag, or `latest`.
    pub fn tag_or_latest(&self) -> Tag {
        let latest = || LATEST.parse().unwrap_or_else(|_| unreachable!("it is a tag"));
        self.tag.clone().unwrap_or_else(latest)
    }

    /// The whole name, its registry as a first component; none if that cannot be one (a port).
    pub fn path(&self) -> Option<RepoName> {
        match &self.registry {
            Some(registry) => self.name.within(registry.as_str()).ok(),
            None => Some(self.name.clone()),
        }
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<ImageName, ImageNameError> {
        let refused = |reason| ImageNameError { text: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|error| refused(NameError::Digest(error)))?)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (rest, tag) = match rest[last..].split_once(':') {
            Some((name, tag)) => (&rest[..last + name.len()], Some(tag.parse().map_err(refused)?)),
            None => (rest, None),
        };
        let is_registry = |first: &str| first.contains(['.', ':']) || first == "localhost";
        let (registry, name) = match rest.split_once('/') {
            Some((first, name)) if is_registry(first) => {
                (Some(first.to_ascii_lowercase().parse().map_err(refused)?), name)
            }
            _ => (None, rest),
        };
        Ok(ImageName { registry, name: name.parse().map_err(refused)?, tag, digest })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        self.name.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, String) {
        let image: ImageName = text.parse().unwrap();
        assert_eq!(image.to_string().parse::<ImageName>().unwrap(), image);
        (image.registry.as_ref().map(ToString::to_string), image.name.to_string(), image.reference().to_string())
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = Digest::sha256(b"x");
        let named = |registry: Option<&str>, name: &str, reference: &str| {
            (registry.map(ToOwned::to_owned), name.to_owned(), reference.to_owned())
        };
        for (text, meant) in [
            ("alpine".to_owned(), named(None, "alpine", "latest")),
            ("alpine:3.20".into(), named(None, "alpine", "3.20")),
            ("library/python".into(), named(None, "library/python", "latest")),
            ("docker.io/library/python:3.11".into(), named(Some("docker.io"), "library/python", "3.11")),
            ("Docker.IO/a".into(), named(Some("docker.io"), "a", "latest")),
            ("localhost/a".into(), named(Some("localhost"), "a", "latest")),
            ("registry.lan:5001/a/b:v1".into(), named(Some("registry.lan:5001"), "a/b", "v1")),
            (format!("ghcr.io/org/app@{digest}"), named(Some("ghcr.io"), "org/app", &digest.to_string())),
            (format!("app:v1@{digest}"), named(None, "app", &digest.to_string())),
        ] {
            assert_eq!(parts(&text), meant, "{text}");
        }
    }

    #[test]
    fn what_names_no_image_says_why() {
        for bad in [
            "",
            ":",
            "@",
            "a:",
            "a@",
            "A",
            "a/",
            "/a",
            "a b",
            "a:b:c",
            "a@sha256:12",
            "../a",
            "https://a/b",
            "-a",
            "a:5000:x/b",
            "a.b:0/c",
        ] {
            let error = bad.parse::<ImageName>().unwrap_err().to_string();
            assert!(error.contains("names no image") && error.contains("ghcr.io/org/app:v1"), "{error}");
        }
    }

    #[test]
    fn a_registry_can_be_the_first_component_of_a_path() {
        let path = |text: &str| text.parse::<ImageName>().unwrap().path().map(|name| name.to_string());
        assert_eq!(path("ghcr.io/a").as_deref(), Some("ghcr.io/a"));
        assert_eq!(path("team/a").as_deref(), Some("team/a"));
        assert_eq!(path("lan:5001/a"), None);
    }
}
