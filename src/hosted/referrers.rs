//! What refers to a manifest of a hosted repository: what was pushed with a `subject`, and what clients of old keep under
//! the fallback tag (distribution-spec, "Enabling the Referrers API"). Blocks on the disk.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::HostedError;
use super::manifests;
use crate::oci::referrer::fallback_tag;
use crate::oci::{Digest, Reference, RepoName};
use crate::storage::Hosted;

/// The descriptors of what refers to `subject`, in the order of their digests. What is not here (any more) is not listed.
pub fn list(store: &Hosted, name: &RepoName, subject: &Digest) -> Result<BTreeMap<Digest, Value>, HostedError> {
    let mut found = adopted(store, name, subject)?;
    for (digest, descriptor) in store.referrers(name, subject)? {
        if let Ok(descriptor) = serde_json::from_slice(&descriptor) {
            found.insert(digest, descriptor);
        }
    }
    let mut listed = BTreeMap::new();
    for (digest, descriptor) in found {
        if store.link(name, &digest)?.is_some() {
            listed.insert(digest, descriptor);
        }
    }
    Ok(listed)
}

fn adopted(store: &Hosted, name: &RepoName, subject: &Digest) -> Result<BTreeMap<Digest, Value>, HostedError> {
    let Ok(tag) = fallback_tag(subject).parse() else { return Ok(BTreeMap::new()) };
    let list = match manifests::get(store, name, &Reference::Tag(tag)) {
        Ok(list) => list,
        Err(HostedError::NoManifest | HostedError::NoRepository) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let index: Value = serde_json::from_slice(&list.bytes).unwrap_or_default();
    let entries = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
    let digest = |entry: &Value| entry.get("digest")?.as_str()?.parse().ok();
    Ok(entries.into_iter().filter_map(|entry| Some((digest(&entry)?, entry))).collect())
}
