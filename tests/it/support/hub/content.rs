//! What the hub holds: repositories with tags, manifests and blobs. Knows nothing of requests.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use larder::oci::{Digest, MediaType};
use serde_json::{Value, json};

use crate::support::image::Image;

/// A manifest with its media type.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The media type it was pushed with.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A repository.
#[derive(Default)]
pub struct Repo {
    /// What the tags mean.
    pub tags: BTreeMap<String, Digest>,
    /// Manifests, whether tagged or not.
    pub manifests: BTreeMap<Digest, Stored>,
    /// Blobs that this repository may show.
    pub blobs: HashSet<Digest>,
    /// Whether only accounts may read it.
    pub private: bool,
}

/// All repositories.
#[derive(Default)]
pub struct Content {
    /// By name.
    pub repos: HashMap<String, Repo>,
    /// Blobs of all repositories.
    pub blobs: HashMap<Digest, Bytes>,
}

impl Content {
    /// The repository, made if need be.
    pub fn repo(&mut self, name: &str) -> &mut Repo {
        self.repos.entry(name.into()).or_default()
    }

    /// Adds a blob.
    pub fn add_blob(&mut self, repo: &str, blob: &Bytes) -> Digest {
        let digest = Digest::sha256(blob);
        self.blobs.insert(digest, blob.clone());
        self.repo(repo).blobs.insert(digest);
        digest
    }

    /// Adds an image with everything below it.
    pub fn add_image(&mut self, repo: &str, image: &Image) -> Digest {
        for blob in &image.blobs {
            self.add_blob(repo, blob);
        }
        for child in &image.children {
            self.add_image(repo, child);
        }
        let digest = image.digest();
        let stored = Stored { media_type: image.media_type, bytes: image.manifest.clone() };
        self.repo(repo).manifests.insert(digest, stored);
        digest
    }
}

impl Repo {
    /// The digest a tag or digest stands for, if the manifest is here.
    pub fn resolve(&self, reference: &str) -> Option<Digest> {
        let digest = match self.tags.get(reference) {
            Some(digest) => *digest,
            None => reference.parse().ok()?,
        };
        self.manifests.contains_key(&digest).then_some(digest)
    }

    /// The index of what has `subject` as its subject.
    pub fn referrers(&self, subject: &str) -> Value {
        let list: Vec<Value> = self.manifests.values().filter_map(|stored| stored.as_referrer(subject)).collect();
        json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": list})
    }
}

impl Stored {
    /// The first manifest for linux/amd64 of a list.
    pub fn amd64(&self) -> Option<Digest> {
        let list: Value = serde_json::from_slice(&self.bytes).unwrap();
        let mut entries = list["manifests"].as_array()?.iter();
        let entry = entries.find(|entry| entry["platform"]["architecture"] == "amd64")?;
        entry["digest"].as_str()?.parse().ok()
    }

    fn as_referrer(&self, subject: &str) -> Option<Value> {
        let manifest: Value = serde_json::from_slice(&self.bytes).unwrap();
        (manifest["subject"]["digest"] == subject).then(|| {
            json!({
                "mediaType": self.media_type.as_str(),
                "size": self.bytes.len(),
                "digest": Digest::sha256(&self.bytes).to_string(),
                "artifactType": manifest["artifactType"],
                "annotations": manifest["annotations"],
            })
        })
    }
}
