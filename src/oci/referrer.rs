//! What a manifest that refers to another is listed as among that one's referrers (distribution-spec, "Listing Referrers").

use std::collections::BTreeMap;

use serde::Deserialize;

use super::descriptor::Descriptor;
use super::digest::Digest;
use super::media_type::MediaType;

/// A manifest that refers to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// What it refers to.
    pub subject: Digest,
    /// How it is listed there.
    pub descriptor: Descriptor,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Referrer {
    /// Reads a manifest's bytes; `None` if it refers to nothing, or is none.
    pub fn read(bytes: &[u8], digest: Digest, media_type: MediaType) -> Option<Referrer> {
        let document: Document = serde_json::from_slice(bytes).ok()?;
        let named = document.artifact_type.filter(|named| !named.is_empty());
        let artifact_type = named.or_else(|| document.config.map(|config| config.media_type));
        let descriptor = Descriptor {
            media_type: media_type.to_string(),
            size: bytes.len() as u64,
            digest,
            platform: None,
            artifact_type,
            annotations: document.annotations.unwrap_or_default(),
        };
        Some(Referrer { subject: document.subject?.digest, descriptor })
    }
}

/// The tag under which clients keep a list of referrers where a registry does not ("Referrers Tag Schema").
pub fn fallback_tag(subject: &Digest) -> String {
    let encoded = subject.hex();
    format!("{}-{}", subject.algorithm().as_str(), &encoded[..encoded.len().min(64)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &serde_json::Value) -> Option<Referrer> {
        let bytes = document.to_string().into_bytes();
        Referrer::read(&bytes, Digest::sha256(&bytes), MediaType::OciManifest)
    }

    #[test]
    fn the_type_is_its_own_or_else_its_configs_and_all_annotations_are_kept() {
        let descriptor = |kind: &str| json!({"mediaType": kind, "size": 1, "digest": Digest::sha256(b"s").to_string()});
        let mut document = json!({"schemaVersion": 2, "config": descriptor("config/type"), "layers": [],
            "subject": descriptor("s"), "annotations": {"a": "1", "b": "2"}});
        let referrer = read(&document).unwrap();
        assert_eq!(referrer.subject, Digest::sha256(b"s"));
        assert_eq!(referrer.descriptor.artifact_type.as_deref(), Some("config/type"));
        assert_eq!(referrer.descriptor.annotations.len(), 2);
        document["artifactType"] = json!("own/type");
        assert_eq!(read(&document).unwrap().descriptor.artifact_type.as_deref(), Some("own/type"));
        document.as_object_mut().unwrap().remove("subject");
        assert_eq!(read(&document), None);
        let index = json!({"schemaVersion": 2, "manifests": [], "subject": descriptor("s")});
        assert_eq!(read(&index).unwrap().descriptor.artifact_type, None);
    }

    #[test]
    fn a_fallback_tag_is_a_tag_whatever_the_algorithm() {
        for algorithm in crate::oci::Algorithm::ALL {
            let tag = fallback_tag(&Digest::of(algorithm, b"x"));
            assert!(tag.parse::<crate::oci::Tag>().is_ok(), "{tag}");
        }
    }
}
