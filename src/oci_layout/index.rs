//! `index.json` and `oci-layout`: the two small documents of a layout. Words only: nothing in here opens a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, MediaType};

/// Under which annotation other tools look for an image's name (image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The one version of the layout that there is.
const VERSION: &str = "1.0.0";

/// What a layout has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Its manifests. One that has several names is there once for each.
    pub manifests: Vec<Descriptor>,
    /// What is said of the whole.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

impl Index {
    /// The text of an `index.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let document = Document {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex.to_string()),
            manifests: self.manifests.clone(),
            annotations: self.annotations.clone(),
        };
        // Plain fields always serialise.
        serde_json::to_vec_pretty(&document).unwrap_or_default()
    }

    /// Reads the text of an `index.json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &[u8]) -> Result<Index, String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match document {
            Document { schema_version: 2, manifests, annotations, .. } => Ok(Index { manifests, annotations }),
            Document { schema_version, .. } => Err(format!("schemaVersion is {schema_version}, not 2")),
        }
    }
}

/// The text of an `oci-layout`.
pub(super) fn marker() -> Vec<u8> {
    serde_json::to_vec(&Marker { version: VERSION.into() }).unwrap_or_default()
}

/// Whether a text is an `oci-layout` that we can read.
pub(super) fn check_marker(text: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<Marker>(text) {
        Ok(marker) if marker.version == VERSION => Ok(()),
        Ok(marker) => Err(format!("imageLayoutVersion is {:?}, not {VERSION:?}", marker.version)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_read_and_what_is_none_is_refused() {
        let theirs = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","size":7,
            "annotations":{"org.opencontainers.image.ref.name":"v1"}}],"more":[1]}"#;
        let index = Index::from_json(theirs).unwrap();
        assert_eq!(index.manifests[0].annotations[REF_NAME], "v1");
        assert_eq!(Index::from_json(&index.to_json()), Ok(index));
        for none in [&b"{}"[..], b"", b"{\"schemaVersion\":1,\"manifests\":[]}"] {
            assert!(Index::from_json(none).is_err());
        }
        assert_eq!(check_marker(&marker()), Ok(()));
        assert!(check_marker(br#"{"imageLayoutVersion":"2.0.0"}"#).is_err() && check_marker(b"{}").is_err());
    }
}
