//! An image with all that is below it: which manifests and blobs that is. Fetches manifests alone.

use bytes::Bytes;

use super::error::ClientError;
use super::registry::{Client, Fetched};
use crate::oci::{Descriptor, Digest, ImageName, Manifest, Platform, Reference, chosen, narrowed};

/// Manifests of one image, indexes in indexes included.
const MAX_MANIFESTS: usize = 1000;

/// An image.
pub struct Whole {
    /// Its manifests, each behind what names it: the first is the image's own.
    pub manifests: Vec<Fetched>,
    /// Its blobs, each once; without those that registries need not have.
    pub blobs: Vec<Descriptor>,
    /// Whether the first manifest is one that no registry has: an index of the chosen platforms alone.
    pub is_new_index: bool,
}

impl Whole {
    /// What `image` consists of, all of it or what runs on `platforms` (none: all of it). An image for one platform is
    /// taken as it is.
    ///
    /// # Errors
    /// A manifest cannot be had, or there is none for a platform.
    pub async fn find(client: &Client, image: &ImageName, platforms: &[Platform]) -> Result<Whole, ClientError> {
        let root = client.manifest(image, &image.reference()).await?;
        let (root, is_new_index) = choose(client, image, root, platforms).await?;
        let (mut found, mut next) = (vec![root], 0);
        while let Some(Fetched { manifest, .. }) = found.get(next) {
            let children: Vec<Digest> = manifest.manifests.iter().map(|child| child.digest).collect();
            for digest in children {
                let child = match found.iter().position(|known| known.digest == digest) {
                    // Named by two: behind both. No manifest names itself, so this ends.
                    Some(known) if known > next => found.remove(known),
                    Some(_) => continue,
                    None => client.manifest(image, &Reference::Digest(digest)).await?,
                };
                found.push(child);
                if found.len() > MAX_MANIFESTS {
                    return Err(ClientError::Broken(format!("it has more than {MAX_MANIFESTS} manifests")));
                }
            }
            next += 1;
        }
        let mut blobs: Vec<Descriptor> = Vec::new();
        for blob in found.iter().flat_map(|found| found.manifest.blobs()).filter(|blob| !blob.is_non_distributable()) {
            if !blobs.iter().any(|known| known.digest == blob.digest) {
                blobs.push(blob.clone());
            }
        }
        Ok(Whole { manifests: found, blobs, is_new_index })
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// The image that runs on `platform`, or the only one that there is.
    pub fn image_for(&self, platform: &Platform) -> Option<&Manifest> {
        let root = &self.manifests.first()?.manifest;
        if !root.media_type.is_index() {
            return Some(root);
        }
        let images = || root.manifests.iter().filter(|entry| !entry.is_attestation());
        let fitting = images().find(|entry| entry.platform.as_ref().is_some_and(|offered| platform.covers(offered)));
        let entry = fitting.or_else(|| images().next())?;
        let found = self.manifests.iter().find(|found| found.digest == entry.digest)?;
        Some(&found.manifest).filter(|manifest| !manifest.media_type.is_index())
    }
}

async fn choose(
    client: &Client,
    image: &ImageName,
    root: Fetched,
    platforms: &[Platform],
) -> Result<(Fetched, bool), ClientError> {
    if platforms.is_empty() || !root.manifest.media_type.is_index() {
        return Ok((root, false));
    }
    let chosen = chosen(&root.manifest, platforms)?;
    if let [only] = chosen.as_slice() {
        return Ok((client.manifest(image, &Reference::Digest(*only)).await?, false));
    }
    let bytes: Bytes = narrowed(&root.bytes, &chosen).into();
    let manifest = Manifest::parse(&bytes).map_err(|error| ClientError::Broken(error.to_string()))?;
    Ok((Fetched { digest: Digest::sha256(&bytes), bytes, manifest }, true))
}
