//! Which of an index's manifests people mean when they name platforms.

use serde_json::Value;
use thiserror::Error;

use super::descriptor::{Descriptor, Platform};
use super::digest::Digest;
use super::manifest::Manifest;

/// A platform that an index does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("has no {wanted}; it has {offered}")]
pub struct NoSuchPlatform {
    wanted: String,
    offered: String,
}

/// The images of an index that run on `platforms`, in the order of their digests.
///
/// # Errors
/// There is none for one of them.
pub fn chosen(index: &Manifest, platforms: &[Platform]) -> Result<Vec<Digest>, NoSuchPlatform> {
    let of = |entry: &Descriptor| Some((entry.platform.clone()?, entry.digest));
    let offered: Vec<(Platform, Digest)> =
        index.manifests.iter().filter(|entry| !entry.is_attestation()).filter_map(of).collect();
    let mut chosen = Vec::new();
    for wanted in platforms {
        let before = chosen.len();
        chosen.extend(offered.iter().filter(|(platform, _)| wanted.covers(platform)).map(|(_, digest)| *digest));
        if chosen.len() == before {
            let offered = offered.iter().map(|(platform, _)| platform.to_string()).collect::<Vec<_>>().join(", ");
            return Err(NoSuchPlatform { wanted: wanted.to_string(), offered });
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// An index of the chosen manifests and what attests to them, everything else as it was. Its digest is another.
pub fn narrowed(index: &[u8], chosen: &[Digest]) -> Vec<u8> {
    let mut index: Value = serde_json::from_slice(index).unwrap_or_default();
    if let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        manifests.retain(|entry| {
            let about = entry.pointer("/annotations/vnd.docker.reference.digest").or_else(|| entry.get("digest"));
            let about = about.and_then(Value::as_str).and_then(|text| text.parse().ok());
            about.is_some_and(|digest: Digest| chosen.contains(&digest))
        });
    }
    serde_json::to_vec(&index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_index_is_narrowed_to_what_was_chosen_and_what_attests_to_it() {
        let [one, two, statement, other] = [1, 2, 3, 4].map(|n| Digest::sha256(&[n]));
        let entry = |digest: &Digest| json!({"digest": digest.to_string(), "size": 1, "mediaType": "m"});
        let attests = |digest: &Digest, to: &Digest| {
            let mut entry = entry(digest);
            entry["annotations"] = json!({"vnd.docker.reference.digest": to.to_string()});
            entry
        };
        let index = json!({"schemaVersion": 2, "annotations": {"a": "b"},
            "manifests": [entry(&one), entry(&two), attests(&statement, &one), attests(&other, &two)]});
        let narrow: Value = serde_json::from_slice(&narrowed(index.to_string().as_bytes(), &[one])).unwrap();
        assert_eq!(narrow["manifests"], json!([entry(&one), attests(&statement, &one)]));
        assert_eq!(
            (&narrow["annotations"], &narrow["schemaVersion"]),
            (&index["annotations"], &index["schemaVersion"])
        );
    }
}
