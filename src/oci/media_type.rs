//! The media types of manifests and indexes, which are the only ones that decide anything here.
//!
//! What a config or a layer contains is never looked at: charts, modules and models use the same endpoints as images.

use std::fmt;
use std::str::FromStr;

/// A media type that a manifest can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/vnd.oci.image.index.v1+json`
    OciIndex,
    /// `application/vnd.oci.image.manifest.v1+json`
    OciManifest,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    DockerList,
    /// `application/vnd.docker.distribution.manifest.v2+json`
    DockerManifest,
}

impl MediaType {
    /// Every type there is, indexes first. Schema 1 is not among them: current clients refuse it.
    pub const ALL: [MediaType; 4] =
        [MediaType::OciIndex, MediaType::DockerList, MediaType::OciManifest, MediaType::DockerManifest];

    /// The one `Accept` that upstreams are asked with: an answer must never depend on who asked first (protocol 2.3).
    pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
         application/vnd.docker.distribution.manifest.list.v2+json, \
         application/vnd.oci.image.manifest.v1+json, \
         application/vnd.docker.distribution.manifest.v2+json";

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::OciIndex => "application/vnd.oci.image.index.v1+json",
            MediaType::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            MediaType::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            MediaType::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// Whether it lists manifests, rather than layers.
    pub fn is_index(self) -> bool {
        matches!(self, MediaType::OciIndex | MediaType::DockerList)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MediaType {
    type Err = ();

    /// Takes a `Content-Type` as it comes: parameters and case do not matter.
    fn from_str(text: &str) -> Result<MediaType, ()> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        MediaType::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(essence)).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        for known in MediaType::ALL {
            assert_eq!(known.as_str().parse(), Ok(known));
            assert_eq!(format!(" {} ; charset=utf-8", known.as_str().to_uppercase()).parse(), Ok(known));
            assert!(MediaType::ACCEPT.contains(known.as_str()));
        }
        assert_eq!("application/json".parse::<MediaType>(), Err(()));
        assert_eq!("application/vnd.docker.distribution.manifest.v1+prettyjws".parse::<MediaType>(), Err(()));
    }
}
