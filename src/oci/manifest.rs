//! A read-only view of a manifest or an index. The bytes stay the truth: nothing here writes one.
//!
//! Only descriptors are read. A document that could be read both as a manifest and as an index is refused
//! (CVE-2021-41190), and so is one whose own `mediaType` contradicts its shape.

use serde::Deserialize;
use thiserror::Error;

use super::descriptor::Descriptor;
use super::digest::Digest;
use super::media_type::MediaType;

/// Largest manifest that is taken, in bytes: what registries must be able to take (distribution-spec, "Pushing manifests").
pub const MAX_MANIFEST: usize = 4 << 20;
/// Most descriptors in one manifest; a client's work is bounded by it.
pub const MAX_DESCRIPTORS: usize = 10_000;

/// Why some bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST`].
    #[error("a manifest of {0} bytes is larger than the 4 MiB that are taken")]
    TooLarge(usize),
    /// Not JSON, or not of the shape that a manifest has.
    #[error("not a manifest: {0}")]
    Malformed(String),
    /// Both a manifest and an index, or a `mediaType` that says otherwise.
    #[error("not a manifest: {0}")]
    Ambiguous(&'static str),
    /// Docker's schema 1, which current clients refuse.
    #[error("a schema 1 manifest, which current clients refuse")]
    Schema1,
    /// More than [`MAX_DESCRIPTORS`] descriptors.
    #[error("a manifest with more than {MAX_DESCRIPTORS} descriptors")]
    TooMany,
}

/// What a manifest's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its own media type.
    pub media_type: MediaType,
    /// Whether it says so itself.
    pub names_its_type: bool,
    /// An image's config.
    pub config: Option<Descriptor>,
    /// An image's layers, or an artifact's.
    pub layers: Vec<Descriptor>,
    /// An index's manifests.
    pub manifests: Vec<Descriptor>,
    /// What this one refers to, if it is a referrer.
    pub subject: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads `bytes`. The media type is a function of the bytes, so that it cannot depend on where they came from; a
    /// manifest that does not name its own is an OCI one (Docker's always do).
    ///
    /// # Errors
    /// The bytes are no manifest, or one that could be taken for something else.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if document.schema_version == 1 || document.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        let is_index = match (&document.manifests, document.config.is_some() || document.layers.is_some()) {
            (Some(_), true) => return Err(ManifestError::Ambiguous("it has both manifests and layers")),
            (Some(_), false) => true,
            (None, true) => false,
            (None, false) => return Err(ManifestError::Malformed("neither manifests nor config and layers".into())),
        };
        let media_type = match document.media_type.as_deref() {
            None => {
                if is_index {
                    MediaType::OciIndex
                } else {
                    MediaType::OciManifest
                }
            }
            Some(text) => text
                .parse::<MediaType>()
                .map_err(|()| ManifestError::Ambiguous("its mediaType is not that of a manifest"))?,
        };
        if media_type.is_index() != is_index {
            return Err(ManifestError::Ambiguous("its mediaType contradicts its content"));
        }
        let manifest = Manifest {
            media_type,
            names_its_type: document.media_type.is_some(),
            config: document.config,
            layers: document.layers.unwrap_or_default(),
            manifests: document.manifests.unwrap_or_default(),
            subject: document.subject.map(|subject| subject.digest),
        };
        if manifest.layers.len() + manifest.manifests.len() > MAX_DESCRIPTORS {
            return Err(ManifestError::TooMany);
        }
        Ok(manifest)
    }

    /// Config and layers: what a pull fetches from the blob endpoint.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "size": 3, "digest": Digest::sha256(b"abc").to_string(), "extra": [1]})
    }

    #[test]
    fn the_media_type_follows_from_the_bytes_alone() {
        let config = descriptor("application/vnd.oci.image.config.v1+json");
        let cases = [
            (json!({"schemaVersion": 2, "config": config, "layers": []}), MediaType::OciManifest),
            (json!({"schemaVersion": 2, "manifests": []}), MediaType::OciIndex),
            (
                json!({"schemaVersion": 2, "mediaType": MediaType::DockerList.as_str(), "manifests": []}),
                MediaType::DockerList,
            ),
            (
                json!({"schemaVersion": 2, "mediaType": MediaType::DockerManifest.as_str(), "config": config, "layers": []}),
                MediaType::DockerManifest,
            ),
        ];
        for (document, expected) in cases {
            assert_eq!(Manifest::parse(document.to_string().as_bytes()).map(|m| m.media_type), Ok(expected));
        }
    }

    #[test]
    fn what_could_be_taken_for_two_things_is_refused() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar");
        for document in [
            json!({"schemaVersion": 2, "layers": [layer], "manifests": []}),
            json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "layers": [layer]}),
            json!({"schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(), "manifests": []}),
            json!({"schemaVersion": 2, "mediaType": "text/html", "manifests": []}),
        ] {
            let parsed = Manifest::parse(document.to_string().as_bytes());
            assert!(matches!(parsed, Err(ManifestError::Ambiguous(_))), "{document}: {parsed:?}");
        }
    }

    #[test]
    fn pages_and_old_schemas_are_not_manifests() {
        for bytes in [&b"<html>sign in</html>"[..], b"", b"{}", b"[]", b"{\"schemaVersion\":2}"] {
            assert!(matches!(Manifest::parse(bytes), Err(ManifestError::Malformed(_))));
        }
        let old = json!({"schemaVersion": 1, "fsLayers": []}).to_string();
        assert_eq!(Manifest::parse(old.as_bytes()), Err(ManifestError::Schema1));
        assert!(matches!(Manifest::parse(&vec![b' '; MAX_MANIFEST + 1]), Err(ManifestError::TooLarge(_))));
    }

    #[test]
    fn attestations_and_foreign_layers_are_told_apart() {
        let mut attestation = descriptor(MediaType::OciManifest.as_str());
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let index =
            json!({"schemaVersion": 2, "manifests": [descriptor(MediaType::OciManifest.as_str()), attestation]});
        let index = Manifest::parse(index.to_string().as_bytes()).unwrap();
        assert_eq!(index.manifests.iter().map(Descriptor::is_attestation).collect::<Vec<_>>(), [false, true]);

        let foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let image = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [foreign]});
        let image = Manifest::parse(image.to_string().as_bytes()).unwrap();
        assert!(image.layers[0].is_non_distributable());
        assert_eq!(image.blobs().count(), 2);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn deep_nesting_is_an_error_and_not_a_crash(depth in 1usize..50_000) {
            let text = format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(depth));
            prop_assert!(Manifest::parse(text.as_bytes()).is_err());
        }
    }
}
