//! A running server as the source of a backup: the other end of `/api/backup/`.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use super::backup::{PREFIX, piece_of};
use super::client::{AdminError, AdminUrl, post};
use crate::backup::{Listing, Source, SourceError};
use crate::oci::{Digest, RepoName};
use crate::oci_layout::Index;
use crate::secret::Secret;
use crate::storage::Home;

/// How long a server may take over one answer: it may have to read and check what no disk has in memory.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. It reads on while others push.
#[derive(Clone, Debug)]
pub struct Remote {
    server: AdminUrl,
    token: Option<Secret>,
}

impl Remote {
    /// The one at `server`, to which `token` is shown.
    pub fn new(server: AdminUrl, token: Option<Secret>) -> Remote {
        Remote { server, token }
    }

    async fn ask(&self, below: &str) -> Result<Bytes, SourceError> {
        let path = format!("{PREFIX}{below}");
        let answer = post(&self.server, self.token.as_ref(), &path, Bytes::new(), PATIENCE).await;
        answer.map_err(|error| match error {
            AdminError::Denied(_, StatusCode::GONE, _) => SourceError::Gone,
            AdminError::Denied(_, StatusCode::INTERNAL_SERVER_ERROR, reason) => SourceError::Lost(reason),
            error => SourceError::Failed(error.to_string()),
        })
    }

    async fn listing_at(&self, below: &str) -> Result<Listing, SourceError> {
        let index = Index::from_json(&self.ask(below).await?).map_err(unreadable)?;
        Listing::read(&index).map_err(unreadable)
    }
}

fn unreadable(error: impl std::fmt::Display) -> SourceError {
    SourceError::Failed(format!("the server's answer cannot be read: {error}"))
}

impl Source for Remote {
    async fn repositories(&self) -> Result<Vec<RepoName>, SourceError> {
        let names: Vec<String> = serde_json::from_slice(&self.ask("repositories").await?).map_err(unreadable)?;
        names.iter().map(|name| name.parse().map_err(unreadable)).collect()
    }

    async fn listing(&self, name: &RepoName) -> Result<Listing, SourceError> {
        self.listing_at(&format!("repositories/{name}")).await
    }

    async fn pinned(&self) -> Result<Listing, SourceError> {
        self.listing_at("pinned").await
    }

    async fn pins(&self) -> Result<Vec<String>, SourceError> {
        serde_json::from_slice(&self.ask("pins").await?).map_err(unreadable)
    }

    async fn piece(&self, home: &Home, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
        self.ask(&piece_of(home, digest, from)).await
    }
}
