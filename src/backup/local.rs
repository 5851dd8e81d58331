//! A store on this machine as the source of a backup: the server's own, when somebody asks it for one, or a stopped one's.

use std::io;

use bytes::Bytes;

use super::entry::Listing;
use super::pinned::{IsPinned, pinned};
use super::source::{PIECE, Source, SourceError};
use crate::oci::{Digest, RepoName};
use crate::storage::{BlobFile, Home, Hosted, StorageError, Store, Verdict, is_lost};
use crate::task;

/// Repositories that are listed at a time.
const STEP: usize = 1000;

/// What is hosted in a store, and what is pinned of its cache. Clones share it.
#[derive(Clone)]
pub struct Local {
    store: Store,
    hosted: Hosted,
    is_pinned: IsPinned,
}

impl Local {
    /// Of this store, whose pins `is_pinned` knows.
    pub fn new(store: &Store, is_pinned: IsPinned) -> Local {
        Local { store: store.clone(), hosted: store.hosted(), is_pinned }
    }
}

impl Source for Local {
    async fn repositories(&self) -> Result<Vec<RepoName>, SourceError> {
        let hosted = self.hosted.clone();
        task::blocking(move || {
            let mut names = Vec::new();
            loop {
                let more = hosted.repositories(names.last(), STEP).map_err(failed)?;
                let all = more.len() < STEP;
                names.extend(more);
                if all {
                    return Ok(names);
                }
            }
        })
        .await
    }

    async fn listing(&self, name: &RepoName) -> Result<Listing, SourceError> {
        let (hosted, name) = (self.hosted.clone(), name.clone());
        task::blocking(move || {
            let holdings = hosted.edit(&name).and_then(|edit| edit.holdings()).map_err(failed)?;
            Ok(Listing::of(&name, holdings))
        })
        .await
    }

    async fn pinned(&self) -> Result<Listing, SourceError> {
        let Local { store, is_pinned, .. } = self.clone();
        task::blocking(move || pinned(&store, &is_pinned)).await.map_err(failed)
    }

    async fn pins(&self) -> Result<Vec<String>, SourceError> {
        let store = self.store.clone();
        task::blocking(move || store.pins()).await.map_err(|error| match error {
            StorageError::Damaged { .. } => SourceError::Lost(error.to_string()),
            error => failed(error),
        })
    }

    async fn piece(&self, home: &Home, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
        let (store, hosted, home, digest) = (self.store.clone(), self.hosted.clone(), home.clone(), *digest);
        task::blocking(move || match home {
            Home::Hosted(name) => hosted_piece(&hosted, &name, &digest, from),
            Home::Cached(_) => cached_piece(&store, &digest, from),
        })
        .await
    }
}

/// What is not to be had was cached, and upstream has it.
fn cached_piece(store: &Store, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
    let Some(blob) = store.blob(digest).map_err(failed)? else { return Err(SourceError::Gone) };
    match part(&blob, from) {
        Err(error) if is_lost(&error) => match store.examine(digest).map_err(failed)? {
            Verdict::Right | Verdict::Summed => part(&blob, from).map_err(|_| SourceError::Gone),
            Verdict::Damaged | Verdict::Gone => Err(SourceError::Gone),
        },
        part => part.map_err(|error| failed(StorageError::unreadable(digest, error))),
    }
}

fn hosted_piece(hosted: &Hosted, name: &RepoName, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
    let lost = |new| SourceError::Lost(StorageError::Lost { digest: *digest, new }.to_string());
    let Some(blob) = hosted.content(digest).map_err(failed)? else {
        // What a link promises and is not there was lost; without one it was deleted, and collected since.
        return Err(match hosted.link(name, digest) {
            Ok(None) => SourceError::Gone,
            Ok(Some(_)) | Err(StorageError::Damaged { .. }) => lost(false),
            Err(error) => failed(error),
        });
    };
    match part(&blob, from) {
        Err(error) if is_lost(&error) => match hosted.examine(digest).map_err(failed)? {
            // Its checksums were wrong, and are right now.
            Verdict::Right | Verdict::Summed => part(&blob, from).map_err(|error| SourceError::Lost(error.to_string())),
            Verdict::Damaged | Verdict::Gone => Err(lost(true)),
        },
        part => part.map_err(|error| failed(StorageError::unreadable(digest, error))),
    }
}

/// What is asked for at a time, found right.
fn part(blob: &BlobFile, from: u64) -> io::Result<Bytes> {
    let part = blob.extent(from, blob.size().saturating_sub(from).min(PIECE) as usize);
    if part.length == 0 { Ok(Bytes::new()) } else { part.read() }
}

fn failed(error: StorageError) -> SourceError {
    SourceError::Failed(error.to_string())
}
