//! A running server as the source of a backup: the other end of `/api/backup/`.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use super::backup::PREFIX;
use super::client::{AdminError, AdminUrl, post};
use crate::backup::{Listing, Source, SourceError};
use crate::oci::{Digest, RepoName};
use crate::oci_layout::Index;
use crate::secret::Secret;

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
        let text = self.ask(&format!("repositories/{name}")).await?;
        Listing::read(&Index::from_json(&text).map_err(unreadable)?).map_err(unreadable)
    }

    async fn pins(&self) -> Result<Vec<String>, SourceError> {
        serde_json::from_slice(&self.ask("pins").await?).map_err(unreadable)
    }

    async fn piece(&self, name: &RepoName, digest: &Digest, from: u64) -> Result<Bytes, SourceError> {
        self.ask(&format!("content/{digest}?repository={name}&from={from}")).await
    }
}
