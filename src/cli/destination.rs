//! The cache that `larder import` fills: a running server's, through its operator's address, or a stopped one's directory.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::Runtime;

use super::failure::Failure;
use crate::admin::RemoteCache;
use crate::admin::client::{self, AdminError, AdminUrl};
use crate::app::{Intake, IntakeError};
use crate::config::Config;
use crate::oci::{Digest, ImageName, Manifest, Repository, Tag};
use crate::secret::Secret;
use crate::storage::StorageError;

/// Gives the bytes of a blob from a place on, some at a time.
pub(super) type Reader = Arc<dyn Fn(u64) -> io::Result<Bytes> + Send + Sync>;

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    There,
    /// It is not what its digest says, and nothing of it is kept.
    Damaged,
}

/// A cache. Every method blocks.
pub(super) enum Destination {
    Stopped(Intake),
    Running(Runtime, RemoteCache),
}

impl Destination {
    /// The server at `server` if one answers there; else the data directory that the configuration names, if there is one.
    pub(super) fn of(
        server: AdminUrl,
        token: Option<Secret>,
        stopped: Option<&Config>,
    ) -> Result<Destination, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        match stopped {
            // Should one run all the same that does not answer, its lock on the directory says so.
            Some(config) if !runtime.block_on(client::answers(&server)) => {
                Ok(Destination::Stopped(Intake::open(config).map_err(Failure::failed)?))
            }
            _ => Ok(Destination::Running(runtime, RemoteCache::new(server, token))),
        }
    }

    /// Where an image is mirrored.
    pub(super) fn repository(&self, image: &ImageName) -> Result<Repository, Failure> {
        match self {
            Destination::Stopped(intake) => intake.repository(image).map_err(Failure::failed),
            Destination::Running(runtime, cache) => runtime.block_on(cache.repository(image)).map_err(Failure::failed),
        }
    }

    /// Brings a blob of so many bytes.
    pub(super) fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        read: &Reader,
    ) -> Result<Taken, Failure> {
        match self {
            Destination::Stopped(intake) => match intake.blob(repository, digest, size, |at| read(at)) {
                Ok(is_new) => Ok(if is_new { Taken::New } else { Taken::There }),
                Err(IntakeError::Storage(StorageError::DigestMismatch { .. })) => Ok(Taken::Damaged),
                Err(error) => Err(Failure::failed(error)),
            },
            Destination::Running(runtime, cache) => {
                runtime.block_on(bring(cache, repository, digest, size, read)).map_err(Failure::failed)
            }
        }
    }

    /// Brings a manifest. False if it is of a kind that nobody pulls any more.
    pub(super) fn manifest(&self, repository: &Repository, digest: &Digest, bytes: &[u8]) -> Result<bool, Failure> {
        if Manifest::parse(bytes).is_err() {
            return Ok(false);
        }
        match self {
            Destination::Stopped(intake) => intake.manifest(repository, digest, bytes).map_err(Failure::failed)?,
            Destination::Running(runtime, cache) => {
                let bytes = Bytes::copy_from_slice(bytes);
                runtime.block_on(cache.manifest(repository, digest, bytes)).map_err(Failure::failed)?;
            }
        }
        Ok(true)
    }

    /// Says what a tag means.
    pub(super) fn tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), Failure> {
        match self {
            Destination::Stopped(intake) => intake.tag(repository, tag, digest).map_err(Failure::failed),
            Destination::Running(runtime, cache) => {
                runtime.block_on(cache.tag(repository, tag, digest)).map_err(Failure::failed)
            }
        }
    }

    /// That was all: the next start of a stopped one finds everything in order.
    pub(super) fn close(self) {
        if let Destination::Stopped(intake) = self {
            intake.close();
        }
    }
}

async fn bring(
    cache: &RemoteCache,
    repository: &Repository,
    digest: &Digest,
    size: u64,
    read: &Reader,
) -> Result<Taken, AdminError> {
    if cache.has(repository, digest, size).await? {
        return Ok(Taken::There);
    }
    let read = read.clone();
    let content = stream::unfold(0, move |at| {
        let piece = (at < size).then(|| read(at));
        // What cannot be read ends it.
        let next = piece.as_ref().and_then(|piece| piece.as_ref().ok()).map_or(size, |piece| at + piece.len() as u64);
        std::future::ready(piece.map(|piece| (piece, next)))
    });
    let is_right = cache.blob(repository, digest, size, content).await?;
    Ok(if is_right { Taken::New } else { Taken::Damaged })
}
