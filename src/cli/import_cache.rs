//! The ways of `larder import` into the cache: an archive, and the directory of a docker-registry that was a proxy.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;

use super::destination::{Destination, Reader, Taken};
use super::distribution::{Distribution, Kept};
use super::failure::Failure;
use super::transfer::Progress;
use crate::archive::{Contents, PackedImage};
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{ImageName, Registry, Repository};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// Puts the images of an archive into the cache, under the names that they have upstream. What to say of it.
pub(super) fn archive(
    destination: &Destination,
    contents: &Arc<Contents>,
    images: &[(&PackedImage, ImageName)],
    progress: &Progress,
) -> Result<String, Failure> {
    let mut text = String::new();
    for (image, name) in images {
        let repository = destination.repository(name)?;
        for blob in &image.blobs {
            let moving = progress.begin(&blob.digest, blob.size);
            let (contents, packed) = (contents.clone(), *blob);
            let read: Reader = Arc::new(move |at| contents.read(&packed, at));
            match destination.blob(&repository, &blob.digest, blob.size, &read)? {
                Taken::New => moving.done("taken in"),
                Taken::There => moving.done("was there already"),
                Taken::Damaged => {
                    return Err(Failure::failed(format_args!("{} changed while it was read", blob.digest)));
                }
            }
        }
        // The tag comes last.
        for (digest, _, bytes) in &image.manifests {
            if !destination.manifest(&repository, digest, bytes)? {
                return Err(Failure::failed(format_args!("{digest} is no manifest that is mirrored")));
            }
        }
        if let Some((digest, ..)) = image.manifests.last() {
            destination.tag(&repository, &name.tag_or_latest(), digest)?;
            text += &format!("{repository}:{}: {digest}\n", name.tag_or_latest());
        }
    }
    Ok(text)
}

#[derive(Default)]
struct Sum {
    tags: usize,
    manifests: usize,
    blobs: usize,
    bytes: u64,
    missing: usize,
    damaged: usize,
}

/// What a docker-registry kept, if that is its directory.
pub(super) fn source(directory: &Path) -> Result<Distribution, Failure> {
    let advice = "is no docker-registry's: name the one that holds docker/registry/v2, its rootdirectory";
    Distribution::at(directory).ok_or_else(|| Failure::wrong_use(format_args!("{} {advice}", directory.display())))
}

/// Takes over what a docker-registry kept in `directory` as the proxy of `registry`. What to say of it.
pub(super) fn distribution(
    destination: &Destination,
    (directory, source): (&Path, &Distribution),
    registry: &Registry,
    progress: &Progress,
) -> Result<String, Failure> {
    let mut sum = Sum::default();
    for kept in &source.repositories().map_err(|error| unreadable(directory, &error))? {
        let image = ImageName { registry: Some(registry.clone()), name: kept.name.clone(), tag: None, digest: None };
        let repository = destination.repository(&image)?;
        progress.say(&repository.to_string());
        repository_of(destination, source, kept, &repository, progress, &mut sum)?;
    }
    let Sum { tags, manifests, blobs, bytes, missing, damaged } = sum;
    let size = ByteSize(bytes).display().iec();
    let mut text = format!("taken over: {tags} tags, {manifests} manifests, {blobs} blobs, {size}\n");
    if missing + damaged > 0 {
        text += &format!("left out: {damaged} damaged, {missing} of which only the name was there\n");
    }
    Ok(text)
}

fn repository_of(
    destination: &Destination,
    source: &Distribution,
    kept: &Kept,
    repository: &Repository,
    progress: &Progress,
    sum: &mut Sum,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format_args!("{repository} cannot be read: {error}"));
    for digest in kept.layers().map_err(failed)? {
        let Some((file, size)) = opened(&source.data(&digest)).map_err(failed)? else {
            sum.missing += 1;
            continue;
        };
        let moving = progress.begin(&digest, size);
        let read: Reader = Arc::new(move |at| chunk(&file, size, at));
        let taken = destination.blob(repository, &digest, size, &read)?;
        moving.done(match taken {
            Taken::New => "taken over",
            Taken::There => "was there already",
            Taken::Damaged => "damaged, left out",
        });
        if taken == Taken::Damaged {
            sum.damaged += 1;
        } else {
            sum.blobs += 1;
            sum.bytes += size;
        }
    }
    let mut here = Vec::new();
    for digest in kept.manifests().map_err(failed)? {
        match small(&source.data(&digest)).map_err(failed)? {
            None => sum.missing += 1,
            Some(bytes) if !digest.matches(&bytes) => sum.damaged += 1,
            Some(bytes) if destination.manifest(repository, &digest, &bytes)? => here.push(digest),
            Some(_) => sum.missing += 1,
        }
    }
    sum.manifests += here.len();
    for (tag, digest) in kept.tags().map_err(failed)? {
        if here.contains(&digest) {
            destination.tag(repository, &tag, &digest)?;
            sum.tags += 1;
        }
    }
    Ok(())
}

fn unreadable(directory: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("{}: it cannot be read: {error}", directory.display()))
}

fn opened(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let size = file.metadata()?.len();
            Ok(Some((file, size)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn chunk(file: &File, size: u64, at: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; size.saturating_sub(at).min(CHUNK as u64) as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}

fn small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(file) if file.len() <= MAX_MANIFEST as u64 => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
