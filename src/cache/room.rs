//! Room on disk for what is on its way in, made if there is none. Never removes anything itself: it asks who does, and
//! waits for a while.

use std::future::{Future, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::oci::Digest;
use crate::storage::{Ingest, Room, StorageError, Store};
use crate::task;

/// How long a fill waits for room at a time. Its client waits meanwhile, so this is short.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often it asks: what was made for one may have been taken by another.
const TRIES: usize = 2;
/// Requests that wait; as many as there are flights.
const MAX_WAITING: usize = 1024;

/// A wish for room.
pub struct Request {
    /// For a file of so many bytes.
    pub length: u64,
    /// Bytes that are held for it already.
    pub held: u64,
    /// Dropped with the request, when what could be done is done.
    pub done: oneshot::Sender<()>,
}

/// Gives room. Clones share it.
#[derive(Clone)]
pub struct Rooms {
    store: Store,
    requests: mpsc::Sender<Request>,
}

impl Rooms {
    /// Room in `store`; requests go to whoever reads them.
    pub fn new(store: Store) -> (Rooms, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        (Rooms { store, requests }, receiver)
    }

    /// Room for `bytes`.
    ///
    /// # Errors
    /// There is none, and none could be made.
    pub async fn reserve(&self, bytes: u64) -> Result<Room, StorageError> {
        self.make(bytes, 0, || ready(self.store.reserve(bytes))).await
    }

    /// As [`Store::ingest`], with room for what is there already.
    ///
    /// # Errors
    /// As [`Rooms::reserve`], or the disk fails.
    pub async fn ingest(&self, digest: &Digest) -> Result<(Ingest, Room), StorageError> {
        let begin = || {
            let (store, digest) = (self.store.clone(), *digest);
            task::blocking(move || store.ingest(&digest))
        };
        self.make(0, 0, begin).await
    }

    /// As [`Store::ingest_beside`].
    ///
    /// # Errors
    /// As [`Rooms::reserve`], or the disk fails.
    pub async fn ingest_beside(&self, digest: &Digest, size: u64) -> Result<(Ingest, Room), StorageError> {
        let begin = || {
            let (store, digest) = (self.store.clone(), *digest);
            task::blocking(move || store.ingest_beside(&digest, size))
        };
        self.make(size, 0, begin).await
    }

    /// Makes `room` enough for `length` bytes, and no more.
    ///
    /// # Errors
    /// As [`Rooms::reserve`].
    pub async fn cover_exactly(&self, room: &Room, length: u64) -> Result<(), StorageError> {
        self.make(length, room.bytes(), || ready(room.cover_exactly(length))).await
    }

    /// Makes `room` enough for `length` bytes, and for some more.
    ///
    /// # Errors
    /// As [`Rooms::reserve`].
    pub async fn cover(&self, room: &Room, length: u64) -> Result<(), StorageError> {
        self.make(length, room.bytes(), || ready(room.cover(length))).await
    }

    async fn make<T, F>(&self, length: u64, held: u64, take: impl Fn() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        for _ in 0..TRIES {
            match take().await {
                Err(StorageError::Uncounted) => {
                    let _ = timeout(PATIENCE, self.store.counted()).await;
                    continue;
                }
                Err(StorageError::NoRoom) if self.store.lacking(length, held).is_some() => {}
                other => return other,
            }
            let (done, answer) = oneshot::channel();
            if self.requests.send(Request { length, held, done }).await.is_err() {
                break;
            }
            // Done or not: whether there is room now is asked of the account.
            let _ = timeout(PATIENCE, answer).await;
        }
        take().await
    }
}
