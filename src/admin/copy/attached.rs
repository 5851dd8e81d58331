//! What belongs to an image and is no part of it: whatever refers to one of its manifests as its `subject`, and what clients
//! keep under tags that are made of a digest instead.

use std::collections::HashSet;

use super::error::{CopyError, MAX_MANIFESTS};
use super::source::{Found, Source};
use crate::oci::referrer::fallback_tag;
use crate::oci::{Digest, Reference, Tag};

/// What such a tag may end in: the list of referrers itself, and cosign's signatures, attestations and SBOMs.
const ENDINGS: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// An image that is attached to another.
pub struct Attached {
    /// Its manifests, each behind what names it.
    pub manifests: Vec<Found>,
    /// The tag that it is kept under, if it is.
    pub tag: Option<Tag>,
}

/// All that is attached to `image`, and to that in turn.
pub async fn attached(source: &Source<'_>, image: &[Found]) -> Result<Vec<Attached>, CopyError> {
    let named = image.iter().flat_map(|found| &found.manifest.manifests);
    let statements: HashSet<Digest> = named.filter(|child| child.is_attestation()).map(|child| child.digest).collect();
    let mut ahead: Vec<Digest> = image.iter().map(|found| found.digest).collect();
    ahead.retain(|digest| !statements.contains(digest));
    let (mut looked_at, mut attached, mut count) = (statements, Vec::new(), image.len());
    let mut taken: HashSet<Digest> = image.iter().map(|found| found.digest).collect();
    while let Some(subject) = ahead.pop() {
        if !looked_at.insert(subject) {
            continue;
        }
        let mut roots = Vec::new();
        for digest in source.referrers(&subject).await? {
            if taken.insert(digest) {
                roots.push((source.manifest(&Reference::Digest(digest)).await?, None));
            }
        }
        for ending in ENDINGS {
            let Ok(tag) = format!("{}{ending}", fallback_tag(&subject)).parse::<Tag>() else { continue };
            if let Some(root) = source.tagged(&tag).await? {
                roots.push((root, Some(tag)));
            }
        }
        for (root, tag) in roots {
            let manifests = source.collect(root).await?;
            count += manifests.len();
            if count > MAX_MANIFESTS {
                return Err(CopyError::TooMany(source.image(&Reference::Digest(subject))));
            }
            taken.extend(manifests.iter().map(|found| found.digest));
            ahead.extend(manifests.iter().map(|found| found.digest));
            attached.push(Attached { manifests, tag });
        }
    }
    Ok(attached)
}
