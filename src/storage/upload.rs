//! What clients are pushing: a file that grows for each upload, and a small one beside it that says whose it is.
//!
//! Files are the truth here, too: how far an upload is, is the length of its file. What was received is hashed as it
//! comes; after a restart, or when the digest turns out to be of another algorithm, it is hashed again from the file.
//! Nothing here outlives a power cut before it is finished, but all of it does a restart.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::blob::Extent;
use super::durable;
use super::error::StorageError;
use super::hosted_files::add_blob_link;
use super::layout::Layout;
use super::sums::Summer;
use super::upload_id::UploadId;
use super::vault::Vault;
use crate::oci::{Algorithm, Digest, Hasher, RepoName};

/// Bytes read back and hashed at a time.
const STRIDE: u64 = 1 << 20;

/// Whose an upload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// Where it goes.
    #[serde(deserialize_with = "repository")]
    pub repository: RepoName,
    /// Who began it; empty for someone without a name.
    pub owner: String,
}

fn repository<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RepoName, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// All uploads that are not finished. Clones share them. Every method blocks on the disk.
#[derive(Clone)]
pub struct Uploads {
    vault: Arc<Vault>,
}

/// One upload, opened. Only one at a time may be for an id: the caller sees to that.
pub struct Upload {
    vault: Arc<Vault>,
    path: PathBuf,
    state: PathBuf,
    file: Arc<File>,
    received: u64,
    hasher: Hasher,
    // Of what is hashed, and begun anew with it.
    summer: Summer,
    hashed: u64,
}

impl Uploads {
    pub(super) fn new(vault: Arc<Vault>) -> Uploads {
        Uploads { vault }
    }

    /// Begins one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn begin(&self, record: &UploadRecord, algorithm: Algorithm) -> Result<(UploadId, Upload), StorageError> {
        let _open = self.vault.while_open()?;
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty())
            .map_err(|error| StorageError::io("naming an upload in", &self.vault.layout.uploads())(error.into()))?;
        let id = UploadId::new(random);
        let path = self.vault.layout.upload(&id);
        let file = options().create_new(true).open(&path).map_err(StorageError::io("creating", &path))?;
        // The file first: a state without one would be an upload that cannot be gone on with.
        let state = self.vault.layout.upload_state(&id);
        if let Err(error) = durable::note(&state, &serde_json::to_vec(record).unwrap_or_default()) {
            // On a full disk they would be many.
            drop((durable::remove(&state), durable::remove(&path)));
            return Err(error);
        }
        Ok((id, self.opened(&id, file, 0, algorithm)))
    }

    /// Goes on with one, if it is here.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(&self, id: &UploadId) -> Result<Option<Upload>, StorageError> {
        let path = self.vault.layout.upload(id);
        let file = match options().open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("opening", &path)(error)),
        };
        let received = file.metadata().map_err(StorageError::io("looking at", &path))?.len();
        Ok(Some(self.opened(id, file, received, Algorithm::Sha256)))
    }

    fn opened(&self, id: &UploadId, file: File, received: u64, algorithm: Algorithm) -> Upload {
        let (path, state) = (self.vault.layout.upload(id), self.vault.layout.upload_state(id));
        let (vault, file, hasher) = (self.vault.clone(), Arc::new(file), Hasher::new(algorithm));
        Upload { vault, path, state, file, received, hasher, summer: Summer::default(), hashed: 0 }
    }

    /// Every upload that is here, whose it is, and when something last came of it. What is left of others is removed.
    ///
    /// # Errors
    /// The disk fails.
    pub fn all(&self) -> Result<Vec<(UploadId, UploadRecord, SystemTime)>, StorageError> {
        let mut found = Vec::new();
        for (name, path) in durable::entries(&self.vault.layout.uploads())? {
            let Ok(id) = name.strip_suffix(".state").unwrap_or(&name).parse::<UploadId>() else { continue };
            if name.ends_with(".state") {
                if !self.vault.layout.upload(&id).exists() {
                    durable::remove(&path)?;
                }
                continue;
            }
            match record(&self.vault.layout, &id)? {
                Some(record) => {
                    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
                    found.push((id, record, modified.map_err(StorageError::io("looking at", &path))?));
                }
                None => drop(durable::remove(&path)?),
            }
        }
        Ok(found)
    }

    /// Ends one without a blob. Says whether it was here.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove(&self, id: &UploadId) -> Result<bool, StorageError> {
        durable::remove(&self.vault.layout.upload_state(id))?;
        durable::remove(&self.vault.layout.upload(id))
    }
}

fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

fn record(layout: &Layout, id: &UploadId) -> Result<Option<UploadRecord>, StorageError> {
    let bytes = durable::read(&layout.upload_state(id))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// The repositories to which something is being uploaded.
pub(super) fn destinations(layout: &Layout) -> Result<Vec<RepoName>, StorageError> {
    let mut found = Vec::new();
    for (name, _) in durable::entries(&layout.uploads())? {
        if let Ok(id) = name.parse::<UploadId>() {
            found.extend(record(layout, &id)?.map(|record| record.repository));
        }
    }
    Ok(found)
}

impl Upload {
    /// Bytes that have come.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk fails or has less than must stay free; what came before is still there.
    pub fn append(&mut self, pieces: &[Bytes]) -> Result<(), StorageError> {
        self.vault.space.spare(pieces.iter().map(|piece| piece.len() as u64).sum())?;
        for piece in pieces {
            self.file.write_all_at(piece, self.received).map_err(StorageError::io("writing", &self.path))?;
            if self.hashed == self.received {
                self.hasher.update(piece);
                self.summer.update(piece);
                self.hashed += piece.len() as u64;
            }
            self.received += piece.len() as u64;
        }
        Ok(())
    }

    /// Goes back to where it was when `length` bytes had come.
    ///
    /// # Errors
    /// The disk fails.
    pub fn go_back_to(&mut self, length: u64) -> Result<(), StorageError> {
        self.file.set_len(length).map_err(StorageError::io("cutting", &self.path))?;
        self.received = self.received.min(length);
        if self.hashed > length {
            self.begin_to_hash(self.hasher.algorithm());
        }
        Ok(())
    }

    /// Makes what came the blob of `digest`, and lets `name` have it: durably, and both or neither.
    ///
    /// # Errors
    /// It hashes to something else, or the disk fails. The upload is over in any case.
    pub fn finish(mut self, name: &RepoName, digest: &Digest) -> Result<(), StorageError> {
        // One that stays is removed at the next start.
        let end = |upload: &Upload| {
            let _ = fs::remove_file(&upload.state);
        };
        let actual = match self.hash(digest.algorithm()) {
            Ok(actual) if actual == *digest => actual,
            other => {
                let _ = fs::remove_file(&self.path);
                end(&self);
                let actual = Box::new(other?);
                return Err(StorageError::DigestMismatch { expected: *digest, actual });
            }
        };
        let _open = self.vault.while_open()?;
        let target = self.vault.layout.blob(&actual);
        let path = TempPath::try_from_path(&self.path).map_err(StorageError::io("taking", &self.path))?;
        let sums = std::mem::take(&mut self.summer).finish();
        sums.write(&target, &self.vault.layout.ingest())?;
        // It replaces what is there: pushing again heals what was damaged.
        durable::publish(&self.file, path, &target)?;
        let _proof = self.vault.stored(digest, sums);
        add_blob_link(&self.vault, name, digest, self.received)?;
        end(&self);
        Ok(())
    }

    fn hash(&mut self, algorithm: Algorithm) -> Result<Digest, StorageError> {
        if self.hasher.algorithm() != algorithm {
            self.begin_to_hash(algorithm);
        }
        while self.hashed < self.received {
            let length = STRIDE.min(self.received - self.hashed) as usize;
            let came = Extent::unproven(self.file.clone(), self.hashed, length);
            let bytes = came.read().map_err(StorageError::io("reading back", &self.path))?;
            self.hasher.update(&bytes);
            self.summer.update(&bytes);
            self.hashed += length as u64;
        }
        Ok(self.hasher.clone().finish())
    }

    fn begin_to_hash(&mut self, algorithm: Algorithm) {
        (self.hasher, self.summer, self.hashed) = (Hasher::new(algorithm), Summer::default(), 0);
    }
}
