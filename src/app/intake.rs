//! Content that comes into the cache by another road than from its upstream, while no server runs: from an archive, or from
//! another proxy's directory. Every byte is checked against its digest. Who imports vouches for what a tag means; whether a
//! repository is for everyone is still decided when somebody asks for it. A running server has its own intake.

use std::io;

use bytes::Bytes;
use thiserror::Error;

use super::error::Error;
use super::stopped::open_stopped;
use super::wiring::routes;
use crate::config::Config;
use crate::oci::{Digest, ImageName, Manifest, ManifestError, Repository, Tag};
use crate::routing::{RouteError, Routes};
use crate::storage::{Link, OpenError, StorageError, Store};

/// Why something is not taken in.
#[derive(Debug, Error)]
pub enum IntakeError {
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] Error),
    /// It belongs to no registry that is mirrored.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// It cannot be read where it is.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is not what its digest says, or the disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The cache of a server that does not run.
pub struct Intake {
    store: Store,
    routes: Routes,
}

impl Intake {
    /// Opens it. Blocks, as everything here does.
    ///
    /// # Errors
    /// A server runs there, or it cannot be used.
    pub fn open(config: &Config) -> Result<Intake, IntakeError> {
        let (routes, store) = (routes(config)?, open_stopped(config)?);
        // Nothing is granted before that.
        tokio::runtime::Builder::new_current_thread().build()?.block_on(store.counted());
        Ok(Intake { store, routes })
    }

    /// Where an image is mirrored.
    ///
    /// # Errors
    /// Nowhere.
    pub fn repository(&self, image: &ImageName) -> Result<Repository, IntakeError> {
        let ns = image.registry.as_ref().map(|registry| registry.as_str());
        Ok(self.routes.route(&image.name, ns)?.repository)
    }

    /// Takes a blob of so many bytes, of which `read` gives those from a place on. Says whether it was not here yet.
    ///
    /// # Errors
    /// It cannot be read, or hashes to something else: nothing of it is kept then.
    pub fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        mut read: impl FnMut(u64) -> io::Result<Bytes>,
    ) -> Result<bool, IntakeError> {
        let is_new = self.store.blob(digest)?.is_none();
        if is_new {
            let (mut ingest, room) = self.store.ingest_beside(digest, size)?;
            let mut at = 0;
            while at < size {
                let piece = read(at)?;
                if piece.is_empty() {
                    ingest.discard();
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                ingest.append(&piece)?;
                at += piece.len() as u64;
            }
            self.store.commit(digest, ingest, room)?;
        }
        self.store.add_link(repository, digest, Link::Blob { size })?;
        Ok(is_new)
    }

    /// Takes a manifest.
    ///
    /// # Errors
    /// It is none, or not that of its digest.
    pub fn manifest(&self, repository: &Repository, digest: &Digest, bytes: &[u8]) -> Result<(), IntakeError> {
        let media_type = Manifest::parse(bytes)?.media_type;
        let size = bytes.len() as u64;
        if self.store.blob(digest)?.is_some() {
            return Ok(self.store.add_link(repository, digest, Link::Manifest { media_type, size })?);
        }
        Ok(self.store.put_manifest(repository, digest, bytes, media_type, self.store.reserve(size)?)?)
    }

    /// The tag means this manifest from now on, until upstream says otherwise.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), IntakeError> {
        Ok(self.store.set_tag(repository, tag, digest, false)?)
    }

    /// Closes it, so that the next start finds everything in order.
    pub fn close(self) {
        self.store.close();
    }
}
