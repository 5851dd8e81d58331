//! Manifests of hosted repositories: put, got, deleted. Every function blocks on the disk.
//!
//! A manifest is here only with all that it names, so that what can be pulled by its tag can be pulled whole; what it
//! refers to (`subject`) may come later or never. Its bytes are kept as they came.

use bytes::Bytes;

use super::error::HostedError;
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Reference, Referrer, RepoName, Tag};
use crate::storage::{BlobFile, Edit, Hosted, Link, StorageError};

/// A manifest, and what it is.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// What its bytes hash to.
    pub digest: Digest,
    /// The type that it was pushed with.
    pub media_type: MediaType,
    /// Its bytes, as they were pushed.
    pub bytes: Bytes,
}

/// A manifest that a client pushes.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// What it says that it is, if it says so.
    pub media_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it is pushed as.
    pub reference: Reference,
    /// More tags that it gets.
    pub tags: Vec<Tag>,
    /// Those among all its tags that keep their meaning once they have one.
    pub immutable: Vec<Tag>,
    /// Whether the repository gets the blobs that it names and that are here, whoever holds them: whoever puts it may read
    /// them. Nothing that removes what nobody holds comes in between.
    pub adopts: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its digest.
    pub digest: Digest,
    /// What it refers to.
    pub subject: Option<Digest>,
}

/// The manifest that a reference means.
pub fn get(store: &Hosted, name: &RepoName, reference: &Reference) -> Result<StoredManifest, HostedError> {
    let digest = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(tag) => store.tag(name, tag)?,
    };
    let opened = digest.map(|digest| Ok::<_, StorageError>((digest, store.open(name, &digest)?))).transpose()?;
    match opened {
        Some((digest, Some((Link::Manifest { media_type, .. }, blob)))) => {
            Ok(StoredManifest { digest, media_type, bytes: verified(store, &digest, &blob)? })
        }
        _ => Err(absent(store, name, HostedError::NoManifest)),
    }
}

fn verified(store: &Hosted, digest: &Digest, blob: &BlobFile) -> Result<Bytes, HostedError> {
    let bytes = blob.read_all().map_err(|error| StorageError::unreadable(digest, error))?;
    if digest.matches(&bytes) {
        return Ok(bytes);
    }
    store.quarantine(digest, "its bytes are wrong")?;
    Err(StorageError::Lost { digest: *digest, new: true }.into())
}

/// Says that the whole repository is not there, if it is not.
pub fn absent(store: &Hosted, name: &RepoName, otherwise: HostedError) -> HostedError {
    match store.exists(name) {
        Ok(true) => otherwise,
        Ok(false) => HostedError::NoRepository,
        Err(error) => error.into(),
    }
}

/// Takes a manifest: afterwards it, its referrer and its tags are there for good, or none of its tags has changed.
pub fn put(store: &Hosted, name: &RepoName, new: &NewManifest) -> Result<Accepted, HostedError> {
    let digest = match &new.reference {
        Reference::Digest(digest) if digest.matches(&new.bytes) => *digest,
        Reference::Digest(expected) => {
            let actual = Box::new(Digest::of(expected.algorithm(), &new.bytes));
            return Err(HostedError::WrongDigest { expected: *expected, actual });
        }
        Reference::Tag(_) => Digest::sha256(&new.bytes),
    };
    let manifest = Manifest::parse(&new.bytes)?;
    let media_type = media_type(&manifest, new.media_type.as_deref())?;
    let referrer = Referrer::read(&new.bytes, digest, media_type);
    let tags = || match &new.reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    };
    let tags: Vec<&Tag> = tags().into_iter().chain(&new.tags).collect();

    // Also before the repository's turn, which others wait for.
    check_immutable(|tag| store.tag(name, tag), &tags, &new.immutable, &digest)?;
    let edit = store.edit_with(name, &digest, &new.bytes)?;
    check_immutable(|tag| edit.tag(tag), &tags, &new.immutable, &digest)?;
    if new.adopts {
        for blob in manifest.blobs() {
            edit.adopt(&blob.digest)?;
        }
    }
    check_references(&edit, &manifest)?;
    if let Some(referrer) = &referrer {
        let descriptor = serde_json::to_vec(&referrer.descriptor).unwrap_or_default();
        edit.add_referrer(&referrer.subject, &digest, &descriptor)?;
    }
    edit.set_link(&digest, Link::Manifest { media_type, size: new.bytes.len() as u64 })?;
    if !tags.is_empty() {
        edit.set_tags(&tags, &digest)?;
    }
    Ok(Accepted { digest, subject: referrer.map(|referrer| referrer.subject) })
}

/// The request's word counts, unless the manifest's own contradicts it. One that names no type may be either family's.
fn media_type(manifest: &Manifest, said: Option<&str>) -> Result<MediaType, HostedError> {
    let is = manifest.media_type;
    let Some(said) = said else { return Ok(is) };
    match said.parse::<MediaType>() {
        Ok(parsed) if parsed == is || (!manifest.names_its_type && parsed.is_index() == is.is_index()) => Ok(parsed),
        _ => Err(HostedError::MediaType { said: said.chars().take(100).collect(), is: is.as_str() }),
    }
}

fn check_immutable(
    meaning: impl Fn(&Tag) -> Result<Option<Digest>, StorageError>,
    tags: &[&Tag],
    immutable: &[Tag],
    digest: &Digest,
) -> Result<(), HostedError> {
    for tag in tags.iter().filter(|tag| immutable.contains(tag)) {
        if meaning(tag)?.is_some_and(|old| old != *digest) {
            return Err(HostedError::Immutable((*tag).clone()));
        }
    }
    Ok(())
}

fn check_references(edit: &Edit<'_>, manifest: &Manifest) -> Result<(), HostedError> {
    let is_needed = |descriptor: &&Descriptor| !descriptor.is_non_distributable();
    for descriptor in manifest.blobs().filter(is_needed).chain(&manifest.manifests) {
        match edit.open(&descriptor.digest) {
            Ok(Some(_)) => {}
            // What is lost is to be pushed again.
            Ok(None) | Err(StorageError::Lost { .. }) => {
                return Err(HostedError::MissingReference(descriptor.digest));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Takes away a tag, or a manifest with all its tags. What only it named becomes garbage.
pub fn delete(store: &Hosted, name: &RepoName, reference: &Reference) -> Result<(), HostedError> {
    let edit = store.edit(name)?;
    let was = match reference {
        Reference::Tag(tag) => edit.remove_tag(tag)?,
        Reference::Digest(digest) => delete_manifest(store, &edit, name, digest)?,
    };
    drop(edit);
    if was { Ok(()) } else { Err(absent(store, name, HostedError::NoManifest)) }
}

fn delete_manifest(store: &Hosted, edit: &Edit<'_>, name: &RepoName, digest: &Digest) -> Result<bool, HostedError> {
    let Some(Link::Manifest { media_type, .. }) = store.link(name, digest)? else { return Ok(false) };
    // One that cannot be read can be deleted all the same; as a referrer it is not listed any more without its link.
    let bytes = edit.open(digest).ok().flatten().and_then(|(_, blob)| blob.read_all().ok());
    // Tags first: a crash in between leaves a manifest without tags, and never a tag without its manifest.
    for tag in edit.tags_of(digest)? {
        edit.remove_tag(&tag)?;
    }
    if let Some(referrer) = bytes.and_then(|bytes| Referrer::read(&bytes, *digest, media_type)) {
        edit.remove_referrer(&referrer.subject, digest)?;
    }
    Ok(edit.remove_link(digest)?)
}
