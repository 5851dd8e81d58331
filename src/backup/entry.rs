//! What the index of a backup says of one manifest, and of a repository while it is being copied. The same words go over
//! the wire and into `index.json`.

use std::collections::{BTreeMap, HashMap};

use crate::oci::{Descriptor, Digest, MediaType, RepoName, Tag};
use crate::oci_layout::{Index, REF_NAME};
use crate::storage::{Holdings, Home};

/// Says that an index is a backup's, and of which format.
pub(super) const FORMAT: &str = "dev.larder.backup";
/// The format that this version writes and knows.
pub(super) const CURRENT: &str = "1";
/// The patterns that were pinned, beside the images.
pub(super) const PINS: &str = "pins.json";
/// In which repository of ours a manifest is.
const REPOSITORY: &str = "dev.larder.repository";
/// In which repository of an upstream's it is that was cached.
const CACHED: &str = "dev.larder.cached";
/// When upstream last said that a cached tag means it, in seconds since 1970.
const LEARNT: &str = "dev.larder.learnt";
/// What it names and its repository did not have any more when the backup was made.
const ABSENT: &str = "dev.larder.absent";
/// In a listing: files that could not be read.
const DAMAGED: &str = "dev.larder.damaged";

/// A manifest of a repository, under one of its names or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) home: Home,
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    /// In bytes.
    pub(super) size: u64,
    pub(super) tag: Option<Tag>,
    /// When upstream said last that the tag means it, in seconds since 1970; 0 of what is ours.
    pub(super) learnt: u64,
    /// What it names and cannot be had: it was deleted on purpose, or never fetched.
    pub(super) absent: Vec<Digest>,
}

impl Entry {
    /// One without a tag of which nothing is missing.
    pub(super) fn new(home: Home, digest: Digest, media_type: MediaType, size: u64) -> Entry {
        Entry { home, digest, media_type, size, tag: None, learnt: 0, absent: Vec::new() }
    }

    /// Whether the repository is one that was cached.
    pub(super) fn is_cached(&self) -> bool {
        matches!(self.home, Home::Cached(_))
    }

    /// What people call it.
    pub(super) fn reference(&self) -> String {
        self.tag.as_ref().map_or_else(|| self.digest.to_string(), Tag::to_string)
    }

    /// What people call its repository.
    pub(super) fn repository(&self) -> String {
        match &self.home {
            Home::Hosted(name) => name.to_string(),
            Home::Cached(repository) => repository.to_string(),
        }
    }

    fn to_descriptor(&self) -> Descriptor {
        let kind = if matches!(self.home, Home::Hosted(_)) { REPOSITORY } else { CACHED };
        let mut annotations = BTreeMap::from([(kind.to_owned(), self.repository())]);
        if let Some(tag) = &self.tag {
            annotations.insert(REF_NAME.to_owned(), format!("{}:{tag}", self.repository()));
        }
        if self.learnt > 0 {
            annotations.insert(LEARNT.to_owned(), self.learnt.to_string());
        }
        if !self.absent.is_empty() {
            let absent: Vec<String> = self.absent.iter().map(Digest::to_string).collect();
            annotations.insert(ABSENT.to_owned(), absent.join(" "));
        }
        Descriptor {
            media_type: self.media_type.to_string(),
            size: self.size,
            digest: self.digest,
            platform: None,
            artifact_type: None,
            annotations,
        }
    }

    fn read(descriptor: &Descriptor) -> Result<Entry, String> {
        let wrong = |what: &str| format!("{}: {what}", descriptor.digest);
        let annotation = |name: &str| descriptor.annotations.get(name).map(String::as_str);
        let unnamed = |error| wrong(&format!("{error}"));
        let (name, home) = match (annotation(REPOSITORY), annotation(CACHED)) {
            (Some(name), None) => (name, Home::Hosted(name.parse().map_err(unnamed)?)),
            (None, Some(name)) => (name, Home::Cached(name.parse().map_err(unnamed)?)),
            _ => return Err(wrong("it is in no repository")),
        };
        let tag = match annotation(REF_NAME) {
            None => None,
            Some(text) => {
                let tag = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
                Some(tag.and_then(|tag| tag.parse().ok()).ok_or_else(|| wrong("its name is not repository:tag"))?)
            }
        };
        let absent: Result<Vec<Digest>, _> =
            annotation(ABSENT).unwrap_or_default().split_whitespace().map(str::parse).collect();
        Ok(Entry {
            home,
            digest: descriptor.digest,
            media_type: descriptor.media_type.parse().map_err(|()| wrong("it is not a manifest's media type"))?,
            size: descriptor.size,
            tag,
            learnt: annotation(LEARNT).and_then(|text| text.parse().ok()).unwrap_or_default(),
            absent: absent.map_err(|error| wrong(&error.to_string()))?,
        })
    }
}

/// What one or all repositories have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Files that could not be read, as their server names them.
    pub(super) damaged: Vec<String>,
}

impl Listing {
    /// Of a repository that has this.
    pub(super) fn of(repository: &RepoName, holdings: Holdings) -> Listing {
        let Holdings { manifests, tags, damaged } = holdings;
        let mut names: HashMap<Digest, Vec<Tag>> = HashMap::new();
        for (tag, digest) in tags {
            names.entry(digest).or_default().push(tag);
        }
        let mut damaged: Vec<String> = damaged.iter().map(|path| path.display().to_string()).collect();
        let mut entries = Vec::new();
        for (digest, media_type, size) in manifests {
            let untagged = Entry::new(repository.clone().into(), digest, media_type, size);
            match names.remove(&digest) {
                Some(tags) => {
                    entries.extend(tags.into_iter().map(|tag| Entry { tag: Some(tag), ..untagged.clone() }));
                }
                None => entries.push(untagged),
            }
        }
        for (digest, tags) in names {
            damaged.extend(tags.iter().map(|tag| format!("tag {tag} means {digest}, which is not here")));
        }
        entries.sort_unstable_by(|one, other| (&one.tag, &one.digest).cmp(&(&other.tag, &other.digest)));
        Listing { entries, damaged }
    }

    /// As an index of the layout.
    pub fn to_index(&self) -> Index {
        let mut annotations = BTreeMap::from([(FORMAT.to_owned(), CURRENT.to_owned())]);
        if !self.damaged.is_empty() {
            annotations.insert(DAMAGED.to_owned(), self.damaged.join("\n"));
        }
        Index { manifests: self.entries.iter().map(Entry::to_descriptor).collect(), annotations }
    }

    /// The reverse of [`Listing::to_index`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(index: &Index) -> Result<Listing, String> {
        let entries = index.manifests.iter().map(Entry::read).collect::<Result<_, String>>()?;
        let damaged = index.annotations.get(DAMAGED).map(|text| text.lines().map(ToOwned::to_owned).collect());
        Ok(Listing { entries, damaged: damaged.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_listed_under_all_its_names_and_read_back() {
        let [image, child, lost] = ["image", "child", "lost"].map(|text| Digest::sha256(text.as_bytes()));
        let holdings = Holdings {
            manifests: vec![(image, MediaType::OciIndex, 7), (child, MediaType::DockerManifest, 8)],
            tags: vec![("v1".parse().unwrap(), image), ("v2".parse().unwrap(), lost), ("v3".parse().unwrap(), image)],
            damaged: vec!["/data/x".into()],
        };
        let mut listing = Listing::of(&"golden/ui".parse().unwrap(), holdings);
        let names: Vec<String> = listing.entries.iter().map(Entry::reference).collect();
        assert_eq!(names, [child.to_string(), "v1".into(), "v3".into()]);
        assert_eq!(listing.damaged.len(), 2);
        listing.entries[1].absent = vec![child, lost];
        let index = Index::from_json(&listing.to_index().to_json()).unwrap();
        assert_eq!(index.manifests[1].annotations[REF_NAME], "golden/ui:v1");
        assert_eq!(Listing::read(&index), Ok(listing));
    }

    #[test]
    fn what_was_cached_is_never_taken_for_ours() {
        let home = Home::Cached("docker.io/library/alpine".parse().unwrap());
        let entry = Entry::new(home, Digest::sha256(b"x"), MediaType::OciIndex, 7);
        let entry = Entry { tag: Some("3.20".parse().unwrap()), learnt: 1_700_000_000, ..entry };
        let listing = Listing { entries: vec![entry], damaged: Vec::new() };
        let index = Index::from_json(&listing.to_index().to_json()).unwrap();
        assert_eq!(index.manifests[0].annotations[REF_NAME], "docker.io/library/alpine:3.20");
        assert_eq!(Listing::read(&index), Ok(listing));
        let mut both = index;
        both.manifests[0].annotations.insert(REPOSITORY.to_owned(), "library/alpine".to_owned());
        assert!(Listing::read(&both).is_err());
    }

    #[test]
    fn an_entry_that_names_no_place_is_refused() {
        let listing = Listing::of(
            &"a".parse().unwrap(),
            Holdings { manifests: vec![(Digest::sha256(b"x"), MediaType::OciIndex, 1)], ..Holdings::default() },
        );
        let good = listing.to_index();
        for (name, value) in
            [(REPOSITORY, "../a"), (REPOSITORY, "A"), (REF_NAME, "a:../v1"), (REF_NAME, "b:v1"), (ABSENT, "sha256:x")]
        {
            let mut index = good.clone();
            index.manifests[0].annotations.insert(name.to_owned(), value.to_owned());
            assert!(Listing::read(&index).is_err(), "{name} {value}");
        }
        assert!(Listing::read(&good).is_ok());
    }
}
