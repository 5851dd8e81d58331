//! Where a backup's content comes from.

use std::future::Future;

use bytes::Bytes;
use thiserror::Error;

use super::entry::Listing;
use crate::oci::{Digest, RepoName};
use crate::storage::Home;

/// Longest piece of content that is asked for at a time, in bytes. A shorter one is the last.
pub const PIECE: u64 = 4 << 20;

/// Why something is not to be had.
#[derive(Clone, Debug, Error)]
pub enum SourceError {
    /// It is not there, and that is no failure.
    #[error("it is not there any more")]
    Gone,
    /// It was pushed, and is lost.
    #[error("{0}")]
    Lost(String),
    /// Nothing can be had at all.
    #[error("{0}")]
    Failed(String),
}

/// A store, here or elsewhere. It may be served from meanwhile.
pub trait Source: Sync {
    /// The names of all hosted repositories.
    fn repositories(&self) -> impl Future<Output = Result<Vec<RepoName>, SourceError>> + Send;

    /// What a repository has, as of one moment.
    fn listing(&self, name: &RepoName) -> impl Future<Output = Result<Listing, SourceError>> + Send;

    /// What is cached of images that are pinned.
    fn pinned(&self) -> impl Future<Output = Result<Listing, SourceError>> + Send;

    /// What the operator pinned while the server ran.
    fn pins(&self) -> impl Future<Output = Result<Vec<String>, SourceError>> + Send;

    /// Content that a repository has or had lately, from a byte on: [`PIECE`] bytes, or fewer at the end.
    fn piece(&self, home: &Home, digest: &Digest, from: u64)
    -> impl Future<Output = Result<Bytes, SourceError>> + Send;
}
