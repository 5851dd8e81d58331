//! Every path below the data directory, and nothing else: the only file that joins paths.
//!
//! Paths are built from checked types alone ([`Digest`], [`Repository`], [`Tag`], [`UploadId`]), whose texts are plain file names, so
//! none of them can point outside. Directories of ours begin with an underscore where repository components stand,
//! which those never do.
//!
//! ```text
//! VERSION LOCK
//! blobs/sha256/ab/abcd…                      content, complete and verified
//! blobs/sha256/ab/abcd….crc                  a checksum for each 64 KiB of it, if it is longer than that
//! ingest/                                    content on its way in
//! cached/docker.io/library/alpine/_links/    which digests this repository may be asked for
//! cached/docker.io/library/alpine/_tags/     what its tags meant when upstream was last asked
//! cached/docker.io/library/alpine/_referrers/
//! cached/docker.io/library/alpine/_public    whether anyone may pull from it, as upstream said when last asked
//! hosted/golden/python/_links/               the same for a repository of ours, which clients push to
//! hosted/golden/python/_tags/
//! hosted/golden/python/_referrers/sha256-…/  what refers to that manifest, one file each
//! uploads/                                   what clients are pushing
//! scrub                                      how far the last look at everything came
//! pins                                       what the operator pinned while the server ran
//! activity                                   what the operator's page remembers
//! quarantine/                                content that was found to be wrong
//! index/ index.epoch index.begins            sled; can be deleted while nothing runs
//! ```

use std::path::{Path, PathBuf};

use super::upload_id::UploadId;
use crate::oci::{Algorithm, Digest, RepoName, Repository, Tag};

const LINKS: &str = "_links";
const TAGS: &str = "_tags";
const REFERRERS: &str = "_referrers";
const PUBLIC: &str = "_public";

/// Knows where everything is.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a data directory.
    pub fn new(root: PathBuf) -> Layout {
        Layout { root }
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Says which layout the directory has.
    pub fn version(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    /// Held by the one process that uses the directory.
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// Where content grows before it is verified.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// Where the content of a digest grows so that a later process can go on with it.
    pub fn part(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}.part", file_name(digest)))
    }

    /// The index's own directory.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Where wrong content goes.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// All content.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The directories that blobs stand in; made once, so that a commit syncs only one.
    pub fn blob_directories(&self) -> impl Iterator<Item = PathBuf> {
        let blobs = self.blobs();
        Algorithm::ALL.into_iter().flat_map(move |algorithm| {
            let directory = blobs.join(algorithm.as_str());
            (0..=255u8).map(move |first| directory.join(format!("{first:02x}")))
        })
    }

    /// The content of a digest.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(&hex)
    }

    /// All cached repositories.
    pub fn cached(&self) -> PathBuf {
        self.root.join("cached")
    }

    /// One cached repository.
    pub fn repository(&self, repository: &Repository) -> RepositoryDirectory {
        let mut path = self.cached();
        path.push(repository.registry.as_str());
        path.extend(repository.name.components());
        RepositoryDirectory(path)
    }

    /// How far the last look at everything came.
    pub fn scrub(&self) -> PathBuf {
        self.root.join("scrub")
    }

    /// What the operator pinned.
    pub fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// What the operator's page remembers.
    pub fn activity(&self) -> PathBuf {
        self.root.join("activity")
    }

    /// All hosted repositories.
    pub fn hosted(&self) -> PathBuf {
        self.root.join("hosted")
    }

    /// One hosted repository.
    pub fn hosted_repository(&self, name: &RepoName) -> RepositoryDirectory {
        let mut path = self.hosted();
        path.extend(name.components());
        RepositoryDirectory(path)
    }

    /// All uploads that are not finished.
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// What has come of one upload.
    pub fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    /// Whose upload that is.
    pub fn upload_state(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(format!("{id}.state"))
    }
}

/// What is kept of one repository, cached or hosted.
#[derive(Clone, Debug)]
pub struct RepositoryDirectory(PathBuf);

impl RepositoryDirectory {
    /// The one at `path`.
    pub fn new(path: PathBuf) -> RepositoryDirectory {
        RepositoryDirectory(path)
    }

    /// Its links.
    pub fn links(&self) -> PathBuf {
        self.0.join(LINKS)
    }

    /// That it may be asked for a digest.
    pub fn link(&self, digest: &Digest) -> PathBuf {
        self.links().join(file_name(digest))
    }

    /// Its tags.
    pub fn tags(&self) -> PathBuf {
        self.0.join(TAGS)
    }

    /// What a tag means.
    pub fn tag(&self, tag: &Tag) -> PathBuf {
        self.tags().join(tag.as_str())
    }

    /// What refers to a digest: of a cached repository a file, of a hosted one a directory with one for each.
    pub fn referrers(&self, digest: &Digest) -> PathBuf {
        self.0.join(REFERRERS).join(file_name(digest))
    }

    /// What refers to any of its manifests.
    pub fn all_referrers(&self) -> PathBuf {
        self.0.join(REFERRERS)
    }

    /// That `referrer` refers to `subject`, in a hosted repository.
    pub fn referrer(&self, subject: &Digest, referrer: &Digest) -> PathBuf {
        self.referrers(subject).join(file_name(referrer))
    }

    /// Whether anyone may pull from a repository.
    pub fn public(&self) -> PathBuf {
        self.0.join(PUBLIC)
    }
}

/// `sha256-abcd…`: a digest as one path component.
pub fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

/// Whether a file on its way in has a name by which it is found again.
pub fn is_resumable(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "part" || extension == "mark")
}

/// The reverse of [`file_name`].
pub fn parse_file_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Which of ours a directory inside a repository's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// Links.
    Links,
    /// Tags.
    Tags,
    /// Referrers.
    Referrers,
    /// The file that says whether anyone may pull.
    Public,
    /// A further component of a repository's name.
    Repository,
}

/// Tells our directories from name components.
pub fn inside(directory: &str) -> Inside {
    match directory {
        LINKS => Inside::Links,
        TAGS => Inside::Tags,
        REFERRERS => Inside::Referrers,
        PUBLIC => Inside::Public,
        _ => Inside::Repository,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_stays_inside_and_is_its_own() {
        let layout = Layout::new("/data".into());
        let repository = Repository { registry: "docker.io".parse().unwrap(), name: "a/b".parse().unwrap() };
        let digest = Digest::sha256(b"x");
        let paths = [
            layout.blob(&digest),
            layout.repository(&repository).link(&digest),
            layout.repository(&repository).tag(&"latest".parse().unwrap()),
            layout.repository(&repository).referrers(&digest),
            layout.repository(&repository).public(),
            layout.hosted_repository(&repository.name).link(&digest),
            layout.hosted_repository(&repository.name).referrer(&digest, &digest),
            layout.upload(&UploadId::new([7; 16])),
        ];
        for path in &paths {
            assert!(path.starts_with("/data") && !path.to_string_lossy().contains(".."), "{path:?}");
        }
        assert_eq!(parse_file_name(&file_name(&digest)), Some(digest));
        assert_eq!(layout.blob_directories().count(), 512);
        assert!(layout.blob_directories().any(|directory| Some(directory.as_path()) == paths[0].parent()));
    }
}
