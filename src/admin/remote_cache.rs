//! The cache of a running server, for commands that bring it something: the other end of `/api/intake/`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use hyper::StatusCode;

use super::client::{AdminError, AdminUrl, post, post_stream};
use super::intake::PREFIX;
use super::query;
use crate::oci::{Digest, ImageName, Repository, Tag};
use crate::secret::Secret;

/// How long a server may take over an answer: it may have to make room first.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes in a second that a server takes at least, on the slowest disk.
const SLOWEST: u64 = 1 << 20;

/// A running server's cache.
#[derive(Clone, Debug)]
pub struct RemoteCache {
    server: AdminUrl,
    token: Option<Secret>,
}

impl RemoteCache {
    /// That of `server`, to which `token` is shown.
    pub fn new(server: AdminUrl, token: Option<Secret>) -> RemoteCache {
        RemoteCache { server, token }
    }

    /// The repository in which an image is upstream.
    ///
    /// # Errors
    /// It is not mirrored there, or there is no answer.
    pub async fn repository(&self, image: &ImageName) -> Result<Repository, AdminError> {
        let answer = self.ask("repository", &[("image", &image.to_string())], Bytes::new()).await?;
        let unreadable = |_| AdminError::Failed("the server's answer cannot be read".to_owned());
        let text = serde_json::from_slice::<String>(&answer).map_err(|_| unreadable(()))?;
        text.parse().map_err(|_| unreadable(()))
    }

    /// Whether a blob is there, and can be asked for in that repository now. If it is not, there is room for it.
    ///
    /// # Errors
    /// There is none, or no answer.
    pub async fn has(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<bool, AdminError> {
        let (repository, digest, size) = (repository.to_string(), digest.to_string(), size.to_string());
        let query = [("repository", &*repository), ("digest", &*digest), ("size", &*size)];
        Ok(self.ask("have", &query, Bytes::new()).await? == "true")
    }

    /// Brings a blob of so many bytes. False if it is not what its digest says.
    ///
    /// # Errors
    /// It cannot be read, the server does not take it, or there is no answer.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<bool, AdminError> {
        let (repository, digest, length) = (repository.to_string(), digest.to_string(), size.to_string());
        let query = [("repository", &*repository), ("digest", &*digest), ("size", &*length)];
        let path = query::with(&format!("{PREFIX}blob"), &query);
        let patience = PATIENCE + Duration::from_secs(size / SLOWEST);
        match post_stream(&self.server, self.token.as_ref(), &path, (size, content), patience).await {
            Err(AdminError::Denied(_, StatusCode::UNPROCESSABLE_ENTITY, _)) => Ok(false),
            done => done.map(|_| true),
        }
    }

    /// Brings a manifest.
    ///
    /// # Errors
    /// As [`RemoteCache::blob`].
    pub async fn manifest(&self, repository: &Repository, digest: &Digest, bytes: Bytes) -> Result<(), AdminError> {
        let (repository, digest) = (repository.to_string(), digest.to_string());
        self.ask("manifest", &[("repository", &*repository), ("digest", &*digest)], bytes).await.map(drop)
    }

    /// Says what a tag means.
    ///
    /// # Errors
    /// The server does not take it, or there is no answer.
    pub async fn tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), AdminError> {
        let (repository, digest) = (repository.to_string(), digest.to_string());
        let query = [("repository", &*repository), ("digest", &*digest), ("tag", tag.as_str())];
        self.ask("tag", &query, Bytes::new()).await.map(drop)
    }

    async fn ask(&self, below: &str, query: &[(&str, &str)], body: Bytes) -> Result<Bytes, AdminError> {
        let path = query::with(&format!("{PREFIX}{below}"), query);
        post(&self.server, self.token.as_ref(), &path, body, PATIENCE).await
    }
}
