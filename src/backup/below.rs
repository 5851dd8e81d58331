//! What manifests name, and what becomes of those whose parts cannot be had. Pure: nothing in here reads anything.

use std::collections::{HashMap, HashSet};

use super::entry::Entry;
use crate::oci::{Digest, Manifest, ManifestError};

/// What a manifest names.
#[derive(Clone, Debug, Default)]
pub(super) struct Below {
    /// Config and layers that a registry has to have, and their lengths in bytes as the manifest says.
    pub(super) blobs: Vec<(Digest, u64)>,
    /// The same of those that it need not have.
    pub(super) optional: Vec<(Digest, u64)>,
    /// An index's manifests.
    pub(super) manifests: Vec<Digest>,
}

impl Below {
    /// Reads a manifest.
    pub(super) fn of(bytes: &[u8]) -> Result<Below, ManifestError> {
        let manifest = Manifest::parse(bytes)?;
        let mut below = Below::default();
        for blob in manifest.blobs() {
            let list = if blob.is_non_distributable() { &mut below.optional } else { &mut below.blobs };
            list.push((blob.digest, blob.size));
        }
        below.manifests = manifest.manifests.iter().map(|descriptor| descriptor.digest).collect();
        Ok(below)
    }
}

/// Adds to `broken` what has something of it below, and says why: an image is whole or it is not.
pub(super) fn spread(broken: &mut HashMap<Digest, String>, below: &HashMap<Digest, Below>) {
    // Each round goes up one level of indexes; a manifest cannot be below itself.
    loop {
        let mut more = Vec::new();
        for (digest, below) in below {
            if broken.contains_key(digest) {
                continue;
            }
            if let Some(child) = below.manifests.iter().find(|child| broken.contains_key(*child)) {
                more.push((*digest, format!("its manifest {child}: {}", broken[child])));
            }
        }
        if more.is_empty() {
            return;
        }
        broken.extend(more);
    }
}

/// All content that these are made of, but for what they lack.
pub(super) fn content(entries: &[Entry], below: &HashMap<Digest, Below>) -> HashSet<Digest> {
    let mut content = HashSet::new();
    for entry in entries {
        content.insert(entry.digest);
        if let Some(below) = below.get(&entry.digest) {
            let blobs = below.blobs.iter().chain(&below.optional).map(|(blob, _)| *blob);
            content.extend(blobs.filter(|blob| !entry.absent.contains(blob)));
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_above_something_broken_is_broken() {
        let [leaf, middle, top, other] = [1u8, 2, 3, 4].map(|n| Digest::sha256(&[n]));
        let index = |child: Digest| Below { manifests: vec![child], ..Below::default() };
        let below = HashMap::from([
            (leaf, Below::default()),
            (middle, index(leaf)),
            (top, index(middle)),
            (other, Below::default()),
        ]);
        let mut broken = HashMap::from([(leaf, "lost".to_owned())]);
        spread(&mut broken, &below);
        assert_eq!(broken.len(), 3);
        assert!(broken[&top].contains(&leaf.to_string()) && !broken.contains_key(&other));
    }
}
