//! What is in an archive: the images of an OCI image layout, or of what `docker save` of Docker before 25 wrote. Nothing of it
//! is believed: every digest is checked against the bytes before anybody gets them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Manifest, MediaType};

/// Files in one archive.
const MAX_FILES: usize = 100_000;
/// Manifests of one image.
const MAX_MANIFESTS: usize = 1000;
/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;
/// Links in archives lead to files, and not to other links.
const MAX_LINKS: usize = 4;
/// Indexes in indexes.
const MAX_DEPTH: usize = 4;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Why an archive is not taken.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is compressed as a whole.
    #[error("it is compressed: unpack it first, with gunzip or zstd -d")]
    Compressed,
    /// It is no archive of images.
    #[error("it is neither an OCI image layout (index.json) nor what docker save writes (manifest.json)")]
    NoImages,
    /// Too much is in it.
    #[error("there is too much in it: more than {0}")]
    TooMuch(usize),
    /// Something that is named is not there.
    #[error("{0} is not in it")]
    Missing(String),
    /// Some content is not what its name says.
    #[error("what is called {0} in it is something else: it is damaged")]
    Mismatch(Digest),
    /// A manifest or a list in it makes no sense.
    #[error("{0}: {1}")]
    Malformed(String, String),
}

/// A file in the archive, by its place.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    size: u64,
}

enum Entry {
    File(Place),
    Link(String),
}

/// An archive.
pub struct Contents {
    file: File,
    entries: HashMap<String, Entry>,
}

/// A blob in an archive, checked.
#[derive(Clone, Copy, Debug)]
pub struct PackedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    offset: u64,
}

/// An image in an archive.
pub struct PackedImage {
    /// What it is called in there.
    pub names: Vec<String>,
    /// Its manifests, each before what names it: the last one is the image's own.
    pub manifests: Vec<(Digest, MediaType, Bytes)>,
    /// Its blobs, each once.
    pub blobs: Vec<PackedBlob>,
}

#[derive(Deserialize)]
struct Layout {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Contents {
    /// Reads what is where.
    ///
    /// # Errors
    /// It cannot be read, or is no tar file.
    pub fn open(path: &Path) -> Result<Contents, ArchiveError> {
        let file = File::open(path)?;
        let mut magic = [0; 4];
        let read = file.read_at(&mut magic, 0)?;
        if magic[..read].starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err(ArchiveError::Compressed);
        }
        let mut entries = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let Some(name) = entry.path()?.to_str().map(plain) else { continue };
            let link = || entry.link_name().ok().flatten().and_then(|to| to.to_str().map(ToOwned::to_owned));
            let found = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    Entry::File(Place { offset: entry.raw_file_position(), size: entry.size() })
                }
                tar::EntryType::Link => Entry::Link(link().unwrap_or_default()),
                // Counts from the directory that it is in.
                tar::EntryType::Symlink => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    Entry::Link(format!("{directory}/{}", link().unwrap_or_default()))
                }
                _ => continue,
            };
            if entries.len() >= MAX_FILES {
                return Err(ArchiveError::TooMuch(MAX_FILES));
            }
            entries.insert(name, found);
        }
        Ok(Contents { file, entries })
    }

    /// The images in it, every blob checked.
    ///
    /// # Errors
    /// Something is missing, damaged, or no image.
    pub fn images(&self) -> Result<Vec<PackedImage>, ArchiveError> {
        if let Some(index) = self.small("index.json")? {
            let layout: Layout = parse("index.json", &index)?;
            return layout.manifests.iter().map(|root| self.laid_out(root)).collect();
        }
        let saved = self.small("manifest.json")?.ok_or(ArchiveError::NoImages)?;
        let saved: Vec<Saved> = parse("manifest.json", &saved)?;
        saved.iter().map(|image| self.saved(image)).collect()
    }

    /// Bytes of a blob from `at` on, as many as are read at a time; none at its end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, blob: &PackedBlob, at: u64) -> io::Result<Bytes> {
        self.chunk(Place { offset: blob.offset, size: blob.size }, at)
    }

    fn chunk(&self, place: Place, at: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; place.size.saturating_sub(at).min(CHUNK as u64) as usize];
        self.file.read_exact_at(&mut bytes, place.offset + at)?;
        Ok(bytes.into())
    }

    fn laid_out(&self, root: &Descriptor) -> Result<PackedImage, ArchiveError> {
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let names = names.iter().filter_map(|key| root.annotations.get(*key).cloned()).collect();
        let mut image = PackedImage { names, manifests: Vec::new(), blobs: Vec::new() };
        self.gather(&root.digest, &mut image, 0)?;
        Ok(image)
    }

    fn gather(&self, digest: &Digest, image: &mut PackedImage, depth: usize) -> Result<(), ArchiveError> {
        if image.manifests.iter().any(|(known, ..)| known == digest) {
            return Ok(());
        }
        if image.manifests.len() >= MAX_MANIFESTS || depth > MAX_DEPTH {
            return Err(ArchiveError::TooMuch(MAX_MANIFESTS));
        }
        let path = blob_path(digest);
        let bytes = self.small(&path)?.ok_or_else(|| ArchiveError::Missing(digest.to_string()))?;
        if !digest.matches(&bytes) {
            return Err(ArchiveError::Mismatch(*digest));
        }
        let malformed =
            |error: crate::oci::ManifestError| ArchiveError::Malformed(digest.to_string(), error.to_string());
        let manifest = Manifest::parse(&bytes).map_err(malformed)?;
        for child in &manifest.manifests {
            self.gather(&child.digest, image, depth + 1)?;
        }
        for blob in manifest.blobs().filter(|blob| !blob.is_non_distributable()) {
            if !image.blobs.iter().any(|known| known.digest == blob.digest) {
                let path = blob_path(&blob.digest);
                let place = self.place(&path).ok_or_else(|| ArchiveError::Missing(blob.digest.to_string()))?;
                if self.digest(place, blob.digest.algorithm())? != blob.digest {
                    return Err(ArchiveError::Mismatch(blob.digest));
                }
                image.blobs.push(PackedBlob { digest: blob.digest, size: place.size, offset: place.offset });
            }
        }
        image.manifests.push((*digest, manifest.media_type, bytes.into()));
        Ok(())
    }

    /// There is no manifest in it, so one is made: the same archive always gives the same.
    fn saved(&self, image: &Saved) -> Result<PackedImage, ArchiveError> {
        let mut blobs: Vec<PackedBlob> = Vec::new();
        let mut add = |path: &str, media_type: &str| -> Result<Value, ArchiveError> {
            let place = self.place(&plain(path)).ok_or_else(|| ArchiveError::Missing(path.to_owned()))?;
            let digest = self.digest(place, Algorithm::Sha256)?;
            if !blobs.iter().any(|known| known.digest == digest) {
                blobs.push(PackedBlob { digest, size: place.size, offset: place.offset });
            }
            let zipped = media_type == LAYER && self.chunk(place, 0)?.starts_with(&[0x1f, 0x8b]);
            let media_type = if zipped { format!("{media_type}+gzip") } else { media_type.to_owned() };
            Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": place.size}))
        };
        let config = add(&image.config, CONFIG)?;
        let layers = image.layers.iter().map(|path| add(path, LAYER)).collect::<Result<Vec<Value>, ArchiveError>>()?;
        self.check_layers(image, &layers)?;
        let kind = MediaType::OciManifest;
        let manifest = json!({"schemaVersion": 2, "mediaType": kind.as_str(), "config": config, "layers": layers});
        let bytes: Bytes = manifest.to_string().into();
        let names = image.repo_tags.clone().unwrap_or_default();
        Ok(PackedImage { names, manifests: vec![(Digest::sha256(&bytes), kind, bytes)], blobs })
    }

    /// The config names the layers by what they are unpacked: that is all there is to check them by.
    fn check_layers(&self, image: &Saved, layers: &[Value]) -> Result<(), ArchiveError> {
        let config = self.small(&plain(&image.config))?.ok_or_else(|| ArchiveError::Missing(image.config.clone()))?;
        let config: Value = parse(&image.config, &config)?;
        let named = config.pointer("/rootfs/diff_ids").and_then(Value::as_array).cloned().unwrap_or_default();
        let malformed = |reason: &str| Err(ArchiveError::Malformed(image.config.clone(), reason.to_owned()));
        if named.len() != layers.len() {
            return malformed("it names another number of layers than there are");
        }
        for (layer, named) in layers.iter().zip(named) {
            if layer["mediaType"] == LAYER && layer["digest"] != named {
                return malformed("a layer is not the one that it names: the archive is damaged");
            }
        }
        Ok(())
    }

    fn digest(&self, place: Place, algorithm: Algorithm) -> io::Result<Digest> {
        let (mut hasher, mut at) = (Hasher::new(algorithm), 0);
        while at < place.size {
            let bytes = self.chunk(place, at)?;
            hasher.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(hasher.finish())
    }

    /// A file that is no longer than a manifest may be.
    fn small(&self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(place) = self.place(path) else { return Ok(None) };
        if place.size > MAX_MANIFEST as u64 {
            return Err(ArchiveError::Malformed(path.to_owned(), "it is too long".to_owned()));
        }
        let mut bytes = vec![0; place.size as usize];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        Ok(Some(bytes))
    }

    fn place(&self, path: &str) -> Option<Place> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entries.get(&path)? {
                Entry::File(place) => return Some(*place),
                Entry::Link(to) => path = plain(to),
            }
        }
        None
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|error| ArchiveError::Malformed(name.to_owned(), error.to_string()))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// A path without what changes nothing (`./a/../b` is `b`). It is only ever looked up among the archive's own.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
