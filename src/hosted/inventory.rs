//! What is hosted, as images, for people: what each tag reaches, and what that takes. Looks at tagged manifests only, for
//! an untagged one is some tag's past. Changes nothing.

use std::collections::{BTreeMap, HashMap};

use crate::oci::{Digest, Manifest, Platform, RepoName, Tag};
use crate::storage::{Hosted, Link, StorageError, footprint};

/// Repositories that are listed in one go.
const STEP: usize = 1000;
/// Longest config that is read for its platform, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// A manifest that a tag means.
#[derive(Clone, Debug)]
pub struct HostedImage {
    /// Its repository.
    pub name: RepoName,
    /// The tags that mean it.
    pub tags: Vec<Tag>,
    /// The manifest.
    pub root: Digest,
    /// What it runs on.
    pub platforms: Vec<Platform>,
    /// The disk that no other image of ours needs, in bytes.
    pub bytes: u64,
    /// The disk that it shares with other images of ours, in bytes.
    pub shared_bytes: u64,
    /// Whether all that it needs is linked.
    pub complete: bool,
}

/// What one image is made of, before it is known what others are.
struct Looked {
    image: HostedImage,
    pieces: HashMap<Digest, u64>,
}

/// All of them, by name and then digest. Blocks on the disk.
pub fn list(store: &Hosted) -> Result<Vec<HostedImage>, StorageError> {
    let (mut looked, mut after): (Vec<Looked>, Option<RepoName>) = (Vec::new(), None);
    loop {
        let names = store.repositories(after.as_ref(), STEP)?;
        for name in &names {
            looked.extend(repository(store, name)?);
        }
        after = names.last().cloned();
        if names.len() < STEP {
            break;
        }
    }
    let mut sharers: HashMap<Digest, u32> = HashMap::new();
    for digest in looked.iter().flat_map(|looked| looked.pieces.keys()) {
        *sharers.entry(*digest).or_default() += 1;
    }
    let sized = |Looked { mut image, pieces }: Looked| {
        for (digest, bytes) in pieces {
            let is_own = sharers.get(&digest) == Some(&1);
            *(if is_own { &mut image.bytes } else { &mut image.shared_bytes }) += bytes;
        }
        image
    };
    Ok(looked.into_iter().map(sized).collect())
}

fn repository(store: &Hosted, name: &RepoName) -> Result<Vec<Looked>, StorageError> {
    let mut roots: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
    for tag in store.tags(name)? {
        if let Some(root) = store.tag(name, &tag)? {
            roots.entry(root).or_default().push(tag);
        }
    }
    roots.into_iter().map(|(root, tags)| look(store, name, root, tags)).collect()
}

fn look(store: &Hosted, name: &RepoName, root: Digest, tags: Vec<Tag>) -> Result<Looked, StorageError> {
    let (bytes, shared_bytes) = (0, 0);
    let mut image =
        HostedImage { name: name.clone(), tags, root, platforms: Vec::new(), bytes, shared_bytes, complete: true };
    let (mut pieces, mut open) = (HashMap::new(), vec![(root, None)]);
    while let Some((digest, platform)) = open.pop() {
        if pieces.contains_key(&digest) {
            continue;
        }
        let Some(link) = store.link(name, &digest)? else {
            image.complete = false;
            continue;
        };
        pieces.insert(digest, footprint(link.size()));
        if matches!(link, Link::Blob { .. }) {
            continue;
        }
        let Some(manifest) = read(store, &digest, link.size())?.and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            image.complete = false;
            continue;
        };
        let children = manifest.manifests.iter().filter(|child| !child.is_attestation());
        open.extend(children.map(|child| (child.digest, child.platform.clone())));
        let attestations = manifest.manifests.iter().filter(|child| child.is_attestation());
        let parts = manifest.blobs().filter(|part| !part.is_non_distributable());
        for part in attestations.chain(parts) {
            open.push((part.digest, None));
        }
        let platform = match (platform, &manifest.config) {
            (None, Some(config)) if digest == root && config.size <= MAX_CONFIG => {
                read(store, &config.digest, config.size)?.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            }
            (platform, _) => platform,
        };
        if let Some(platform) = platform.filter(|platform| !image.platforms.contains(platform)) {
            image.platforms.push(platform);
        }
    }
    image.platforms.sort_by_cached_key(Platform::to_string);
    Ok(Looked { image, pieces })
}

/// What cannot be read now is not known.
fn read(store: &Hosted, digest: &Digest, size: u64) -> Result<Option<bytes::Bytes>, StorageError> {
    let blob = store.content(digest)?.filter(|blob| blob.size() == size);
    Ok(blob.and_then(|blob| blob.read_all().ok()))
}
