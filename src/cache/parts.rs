//! What is here of one image: for which platforms, and whether each is whole. Reads manifests from disk; fetches nothing.

use std::collections::HashSet;

use crate::oci::{Descriptor, Digest, Manifest, Platform};
use crate::storage::{BlobFile, Store};

/// Longest config that is read for its platform, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Manifests below one that are looked at; no image has so many.
const MAX_LOOKS: usize = 1000;

/// Looks at images. Blocks on the disk.
pub struct Parts<'a, F> {
    store: &'a Store,
    is_here: F,
}

impl<'a, F: Fn(&Digest) -> bool> Parts<'a, F> {
    /// Of that content in `store` which `is_here` for whom it is about.
    pub fn new(store: &'a Store, is_here: F) -> Parts<'a, F> {
        Parts { store, is_here }
    }

    /// The platforms of which the manifest is here, and whether all that they need is. Attestations are not asked for.
    pub fn look(&self, root: &Digest) -> (Vec<Platform>, bool) {
        let (mut platforms, mut complete, mut images) = (Vec::new(), true, 0);
        let (mut open, mut seen) = (vec![(*root, None)], HashSet::new());
        while let Some((digest, told)) = open.pop() {
            if !seen.insert(digest) || seen.len() > MAX_LOOKS {
                continue;
            }
            let Some(manifest) = self.manifest(&digest) else {
                complete = false;
                continue;
            };
            if manifest.media_type.is_index() {
                let pulled = manifest.manifests.iter().filter(|child| !child.is_attestation());
                let pulled = pulled.filter(|child| (self.is_here)(&child.digest));
                open.extend(pulled.map(|child| (child.digest, child.platform.clone())));
                continue;
            }
            images += 1;
            let needed = |part: &&Descriptor| !part.is_non_distributable();
            complete &= manifest.blobs().filter(needed).all(|part| (self.is_here)(&part.digest));
            let platform = told.or_else(|| self.platform(manifest.config.as_ref()?));
            platforms.extend(platform.filter(|platform| !platforms.contains(platform)));
        }
        platforms.sort_by_cached_key(Platform::to_string);
        // An index of which nothing was pulled is no image that could be.
        (platforms, complete && images > 0)
    }

    fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        let blob = self.blob(digest)?;
        Manifest::parse(&blob.read_all().ok()?).ok()
    }

    fn platform(&self, config: &Descriptor) -> Option<Platform> {
        let blob = self.blob(&config.digest).filter(|blob| blob.size() <= MAX_CONFIG)?;
        serde_json::from_slice(&blob.read_all().ok()?).ok()
    }

    fn blob(&self, digest: &Digest) -> Option<BlobFile> {
        (self.is_here)(digest).then(|| self.store.blob(digest).ok().flatten()).flatten()
    }
}
