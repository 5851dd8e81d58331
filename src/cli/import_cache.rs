//! The ways of `larder import` into the cache of a server that does not run: an archive, and the directory of a
//! docker-registry that was a proxy.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use bytesize::ByteSize;

use super::distribution::{Distribution, Kept};
use super::failure::Failure;
use super::transfer::Progress;
use crate::app::{Intake, IntakeError};
use crate::archive::{Contents, PackedImage};
use crate::config::Config;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{ImageName, Registry, Repository};
use crate::storage::StorageError;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// Puts the images of an archive into the cache, under the names that they have upstream. What to say of it.
pub(super) fn archive(
    config: &Config,
    contents: &Contents,
    images: &[(&PackedImage, ImageName)],
    progress: &Progress,
) -> Result<String, Failure> {
    let intake = Intake::open(config).map_err(Failure::failed)?;
    let mut text = String::new();
    let done = images.iter().try_for_each(|(image, name)| {
        let repository = intake.repository(name)?;
        for blob in &image.blobs {
            let moving = progress.begin(&blob.digest, blob.size);
            let is_new = intake.blob(&repository, &blob.digest, blob.size, |at| contents.read(blob, at))?;
            moving.done(if is_new { "taken in" } else { "was there already" });
        }
        // The tag comes last.
        for (digest, _, bytes) in &image.manifests {
            intake.manifest(&repository, digest, bytes)?;
        }
        if let Some((digest, ..)) = image.manifests.last() {
            intake.tag(&repository, &name.tag_or_latest(), digest)?;
            text += &format!("{repository}:{}: {digest}\n", name.tag_or_latest());
        }
        Ok::<(), IntakeError>(())
    });
    intake.close();
    done.map_err(Failure::failed)?;
    Ok(text)
}

#[derive(Default)]
struct Taken {
    tags: usize,
    manifests: usize,
    blobs: usize,
    bytes: u64,
    missing: usize,
    damaged: usize,
}

/// Takes over what a docker-registry kept as the proxy of `registry`. What to say of it.
pub(super) fn distribution(
    config: &Config,
    directory: &Path,
    registry: &Registry,
    progress: &Progress,
) -> Result<String, Failure> {
    let none = || {
        let advice = "is no docker-registry's: name the one that holds docker/registry/v2, its rootdirectory";
        Failure::wrong_use(format_args!("{} {advice}", directory.display()))
    };
    let source = Distribution::at(directory).ok_or_else(none)?;
    let intake = Intake::open(config).map_err(Failure::failed)?;
    let mut taken = Taken::default();
    let done = source.repositories().map_err(IntakeError::Read).and_then(|all| {
        all.iter().try_for_each(|kept| {
            let image =
                ImageName { registry: Some(registry.clone()), name: kept.name.clone(), tag: None, digest: None };
            let repository = intake.repository(&image)?;
            progress.say(&repository.to_string());
            repository_of(&intake, &source, kept, &repository, progress, &mut taken)
        })
    });
    intake.close();
    done.map_err(|error| Failure::failed(format_args!("{}: {error}", directory.display())))?;
    let Taken { tags, manifests, blobs, bytes, missing, damaged } = taken;
    let size = ByteSize(bytes).display().iec();
    let mut text = format!("taken over: {tags} tags, {manifests} manifests, {blobs} blobs, {size}\n");
    if missing + damaged > 0 {
        text += &format!("left out: {damaged} damaged, {missing} of which only the name was there\n");
    }
    Ok(text)
}

fn repository_of(
    intake: &Intake,
    source: &Distribution,
    kept: &Kept,
    repository: &Repository,
    progress: &Progress,
    taken: &mut Taken,
) -> Result<(), IntakeError> {
    for digest in kept.layers()? {
        let Some((file, size)) = opened(&source.data(&digest))? else {
            taken.missing += 1;
            continue;
        };
        let moving = progress.begin(&digest, size);
        match intake.blob(repository, &digest, size, |at| chunk(&file, size, at)) {
            Ok(is_new) => {
                taken.blobs += 1;
                taken.bytes += size;
                moving.done(if is_new { "taken over" } else { "was there already" });
            }
            Err(IntakeError::Storage(StorageError::DigestMismatch { .. })) => {
                taken.damaged += 1;
                moving.done("damaged, left out");
            }
            Err(error) => return Err(error),
        }
    }
    let mut here = Vec::new();
    for digest in kept.manifests()? {
        match small(&source.data(&digest))? {
            None => taken.missing += 1,
            Some(bytes) if !digest.matches(&bytes) => taken.damaged += 1,
            Some(bytes) => match intake.manifest(repository, &digest, &bytes) {
                Ok(()) => here.push(digest),
                // Of a kind that nobody pulls any more.
                Err(IntakeError::Manifest(_)) => taken.missing += 1,
                Err(error) => return Err(error),
            },
        }
    }
    taken.manifests += here.len();
    for (tag, digest) in kept.tags()? {
        if here.contains(&digest) {
            intake.tag(repository, &tag, &digest)?;
            taken.tags += 1;
        }
    }
    Ok(())
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
