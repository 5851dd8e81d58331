//! A store on this machine as the source of a backup: the server's own, when somebody asks it for one, or a stopped one's.

use bytes::Bytes;

use super::entry::Listing;
use super::source::{PIECE, Source, SourceError};
use crate::oci::{Digest, RepoName};
use crate::storage::{Hosted, StorageError, Store, Verdict, is_lost};
use crate::task;

/// Repositories that are listed at a time.
const STEP: usize = 1000;

/// What is hosted in a store. Clones share it.
#[derive(Clone)]
pub struct Local {
    store: Store,
    hosted: Hosted,
}

impl Local {
    /// Of this store.
    pub fn new(store: &Store) -> Local {
        Local { store: store.clone(), hosted: store.hosted() }
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

    async fn pins(&self) -> Result<Vec<String>, SourceError> {
        let store = self.store.clone();
        task::blocking(move || store.pins()).await.map_err(|error| match error {
            StorageError::Damaged { .. } => SourceError::Lost(error.to_string()),
            error => failed(error),
        })
    }

    async fn piece(&self, name: &RepoName, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
        let (hosted, name, digest) = (self.hosted.clone(), name.clone(), *digest);
        task::blocking(move || piece(&hosted, &name, &digest, from)).await
    }
}

fn piece(hosted: &Hosted, name: &RepoName, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
    let lost = |new| SourceError::Lost(StorageError::Lost { digest: *digest, new }.to_string());
    let Some(blob) = hosted.content(digest).map_err(failed)? else {
        // What a link promises and is not there was lost; without one it was deleted, and collected since.
        return Err(match hosted.link(name, digest) {
            Ok(None) => SourceError::Gone,
            Ok(Some(_)) | Err(StorageError::Damaged { .. }) => lost(false),
            Err(error) => failed(error),
        });
    };
    let part = blob.extent(from, blob.size().saturating_sub(from).min(PIECE) as usize);
    if part.length == 0 {
        return Ok(Bytes::new());
    }
    match part.read() {
        Ok(bytes) => Ok(bytes),
        Err(error) if is_lost(&error) => match hosted.examine(digest).map_err(failed)? {
            // Its checksums were wrong, and are right now.
            Verdict::Right | Verdict::Summed => part.read().map_err(|error| SourceError::Lost(error.to_string())),
            Verdict::Damaged | Verdict::Gone => Err(lost(true)),
        },
        Err(error) => Err(failed(StorageError::unreadable(digest, error))),
    }
}

fn failed(error: StorageError) -> SourceError {
    SourceError::Failed(error.to_string())
}
