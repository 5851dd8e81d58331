//! Uploads: begun, gone on with, asked about, finished, cancelled. Bounded in number, and over when nobody goes on.
//!
//! Who is not the one who began an upload, or means another repository, is told that there is none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use super::error::HostedError;
use super::session::{ChunkRange, Session, Turn, received, take_in};
use crate::clock::Clock;
use crate::oci::{Algorithm, Digest, RepoName};
use crate::storage::{self, StorageError, Upload, UploadId, UploadRecord};
use crate::task;

/// Uploads that are not finished, in all.
pub const MAX_UPLOADS: usize = 1024;
/// How long one waits for its client.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long it waits when others want its place.
const CROWDED_LIFETIME: Duration = Duration::from_secs(3600);

/// Who asks, and for which repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pusher {
    /// Where the upload goes.
    pub repository: RepoName,
    /// Who pushes; empty for someone without a name.
    pub owner: String,
}

/// All uploads. Clones share them.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    files: storage::Uploads,
    clock: Clock,
    sessions: Mutex<HashMap<UploadId, Arc<Session>>>,
}

impl Uploads {
    /// The uploads that are here. Blocks.
    pub fn open(files: storage::Uploads, clock: Clock) -> Result<Uploads, StorageError> {
        let (now, wall) = (clock.tick(), clock.wall());
        let mut sessions = HashMap::new();
        for (id, record, modified) in files.all()? {
            if sessions.len() >= MAX_UPLOADS || wall.duration_since(modified).is_ok_and(|age| age >= LIFETIME) {
                files.remove(&id)?;
            } else {
                sessions.insert(id, Arc::new(Session::new(record, None, now)));
            }
        }
        Ok(Uploads { inner: Arc::new(Inner { files, clock, sessions: Mutex::new(sessions) }) })
    }

    /// Begins one.
    pub async fn begin(&self, who: &Pusher, algorithm: Algorithm) -> Result<UploadId, HostedError> {
        if self.inner.lock().len() >= MAX_UPLOADS {
            self.expire(CROWDED_LIFETIME).await?;
        }
        let (inner, record) = (self.inner.clone(), who.record());
        task::blocking(move || {
            let (id, upload) = inner.files.begin(&record, algorithm)?;
            let session = Arc::new(Session::new(record, Some(upload), inner.clock.tick()));
            let mut sessions = inner.lock();
            if sessions.len() >= MAX_UPLOADS {
                drop(sessions);
                inner.files.remove(&id)?;
                return Err(HostedError::TooManyUploads);
            }
            sessions.insert(id, session);
            Ok(id)
        })
        .await
    }

    /// Takes in more. Returns how many bytes have come in all.
    pub async fn append<E: std::fmt::Display>(
        &self,
        who: &Pusher,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, HostedError> {
        let turn = self.turn(who, id).await?;
        Ok(received(&self.take_in(id, turn, range, body).await?))
    }

    /// How many bytes have come.
    pub async fn status(&self, who: &Pusher, id: &UploadId) -> Result<u64, HostedError> {
        Ok(received(&self.turn(who, id).await?))
    }

    /// Takes in the rest and makes all of it the blob of `digest`, durably. If it is not, the upload is over, too.
    pub async fn finish<E: std::fmt::Display>(
        &self,
        who: &Pusher,
        id: &UploadId,
        range: Option<ChunkRange>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        digest: Digest,
    ) -> Result<(), HostedError> {
        let turn = self.turn(who, id).await?;
        let mut turn = self.take_in(id, turn, range, body).await?;
        let (inner, repository, id) = (self.inner.clone(), who.repository.clone(), *id);
        task::blocking(move || {
            let upload = turn.take().ok_or(HostedError::NoUpload)?;
            let finished = upload.finish(&repository, &digest);
            inner.lock().remove(&id);
            Ok(finished?)
        })
        .await
    }

    /// Takes in all of a blob in one go.
    pub async fn push<E: std::fmt::Display>(
        &self,
        who: &Pusher,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        digest: Digest,
    ) -> Result<(), HostedError> {
        let id = self.begin(who, digest.algorithm()).await?;
        // Nobody else knows its name: if this ends early, so does the upload.
        let unfinished = Unfinished { uploads: self.clone(), id };
        let finished = self.finish(who, &id, None, body, digest).await;
        drop(unfinished);
        finished
    }

    /// Ends one without a blob.
    pub async fn cancel(&self, who: &Pusher, id: &UploadId) -> Result<(), HostedError> {
        let turn = self.turn(who, id).await?;
        self.end(*id, Some(turn)).await
    }

    /// Ends those that nobody has gone on with for `lifetime`. Returns how many.
    pub async fn expire(&self, lifetime: Duration) -> Result<usize, HostedError> {
        let now = self.inner.clock.tick();
        let idle: Vec<UploadId> = {
            let sessions = self.inner.lock();
            sessions.iter().filter(|(_, session)| session.is_idle(now, lifetime)).map(|(id, _)| *id).collect()
        };
        for id in &idle {
            self.end(*id, None).await?;
        }
        Ok(idle.len())
    }

    /// As [`take_in`]. When the disk fails, the upload is over: what it holds of a full one is somebody else's room.
    async fn take_in<E: std::fmt::Display>(
        &self,
        id: &UploadId,
        turn: Turn,
        range: Option<ChunkRange>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Turn, HostedError> {
        let taken = take_in(turn, range, body).await;
        if matches!(taken, Err(HostedError::Storage(_))) {
            self.end(*id, None).await?;
        }
        taken
    }

    async fn end(&self, id: UploadId, turn: Option<Turn>) -> Result<(), HostedError> {
        let inner = self.inner.clone();
        task::blocking(move || {
            inner.lock().remove(&id);
            if let Some(mut turn) = turn {
                *turn = None;
            }
            inner.files.remove(&id).map(|_was| ()).map_err(HostedError::from)
        })
        .await
    }

    async fn turn(&self, who: &Pusher, id: &UploadId) -> Result<Turn, HostedError> {
        let session = self.inner.lock().get(id).cloned().ok_or(HostedError::NoUpload)?;
        if session.record != who.record() {
            return Err(HostedError::NoUpload);
        }
        let mut turn = session.turn(&self.inner.clock).await?;
        if turn.is_some() {
            return Ok(turn);
        }
        // After a restart it is opened again; after its end there is nothing to open.
        let (inner, id) = (self.inner.clone(), *id);
        task::blocking(move || {
            let opened: Option<Upload> = inner.files.open(&id)?;
            *turn = Some(opened.ok_or(HostedError::NoUpload)?);
            Ok(turn)
        })
        .await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pusher {
    fn record(&self) -> UploadRecord {
        UploadRecord { repository: self.repository.clone(), owner: self.owner.clone() }
    }
}

/// An upload that is over when this is dropped.
struct Unfinished {
    uploads: Uploads,
    id: UploadId,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.uploads.inner.lock().contains_key(&self.id) {
            return;
        }
        let (uploads, id) = (self.uploads.clone(), self.id);
        task::spawn("upload", async move {
            if let Err(error) = uploads.end(id, None).await {
                tracing::warn!(%error, "an upload that broke off is left until it expires");
            }
        });
    }
}
