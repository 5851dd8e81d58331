//! A descriptor: what some content is, how long it is, and its digest (OCI image-spec, descriptor.md).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;

/// What an image of an index runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, or `unknown`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows builds are told apart by it.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// Why a text is no platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("write a platform as os/architecture, like linux/amd64, or with a variant, like linux/arm/v7")]
pub struct NoPlatform;

impl FromStr for Platform {
    type Err = NoPlatform;

    fn from_str(text: &str) -> Result<Platform, NoPlatform> {
        let mut parts = text.split('/').map(str::to_owned);
        let (Some(os), Some(architecture), variant, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoPlatform);
        };
        let is_word =
            |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let good = is_word(&os) && is_word(&architecture) && variant.as_ref().is_none_or(is_word);
        if good { Ok(Platform { os, architecture, variant, os_version: None }) } else { Err(NoPlatform) }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// The one whose images run here. Containers are Linux's, also where a virtual machine runs them.
    pub fn of_this_machine() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: None, os_version: None }
    }

    /// Whether what runs on `other` was meant by this: what this does not say may be anything.
    pub fn covers(&self, other: &Platform) -> bool {
        let (variant, version) = (self.variant.as_ref(), self.os_version.as_ref());
        self.os == other.os
            && self.architecture == other.architecture
            && variant.is_none_or(|variant| other.variant.as_ref() == Some(variant))
            && version.is_none_or(|version| other.os_version.as_ref() == Some(version))
    }
}

/// Points at content. Fields that nothing here decides by are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's media type, as its author wrote it.
    pub media_type: String,
    /// The content's length in bytes.
    pub size: u64,
    /// The content's digest.
    pub digest: Digest,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In a list of referrers: what kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Whether clients fetch it from elsewhere and registries need not hold it (protocol 1.3, 2.4).
    pub fn is_non_distributable(&self) -> bool {
        self.media_type.contains("nondistributable")
            || self.media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    }

    /// Whether an index carries it as an attestation of another of its manifests.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_means_what_it_says_and_no_more() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        assert!(platform("linux/arm").covers(&platform("linux/arm/v6")));
        assert!(!platform("linux/arm/v7").covers(&platform("linux/arm/v6")));
        assert!(!platform("linux/arm/v7").covers(&platform("linux/arm")));
        assert!(!platform("linux/arm").covers(&platform("linux/arm64")));
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux//v7"] {
            assert_eq!(bad.parse::<Platform>(), Err(NoPlatform), "{bad}");
        }
    }
}
