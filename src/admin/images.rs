//! What is here, as images: cached ones and our own, and taking a cached one away. Our own go through their registry, where
//! it is known who may.

use hyper::StatusCode;
use serde::Serialize;
use thiserror::Error;

use super::query;
use super::served::{Home, Served};
use crate::cache::{CachedImage, InventoryError, Which};
use crate::hosted::HostedImage;
use crate::oci::{Digest, ImageName, ImageNameError, Platform, Reference, Tag};
use crate::routing::RouteError;
use crate::storage::StorageError;
use crate::task;

/// Images in one answer at most; `after` the last of them come the next.
pub const MAX_PAGE: usize = 1000;

/// Why that is not told, or not done.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// `n` is no number, or `image` is missing.
    #[error("write it like {0}")]
    Query(&'static str),
    /// It names no image.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// It is nowhere here.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// It is ours.
    #[error(
        "{0} is in your own registry: delete it there, with an account that may (DELETE /v2/NAME/manifests/DIGEST)"
    )]
    Hosted(String),
    /// What is cached cannot be told or changed.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ImagesError {
    /// How it is answered.
    pub fn status(&self) -> StatusCode {
        match self {
            ImagesError::Query(_) | ImagesError::Name(_) => StatusCode::BAD_REQUEST,
            ImagesError::Route(_) | ImagesError::Inventory(InventoryError::Absent(_)) => StatusCode::NOT_FOUND,
            ImagesError::Hosted(_) | ImagesError::Inventory(InventoryError::Pinned(_)) => StatusCode::CONFLICT,
            ImagesError::Inventory(InventoryError::NotReady) => StatusCode::SERVICE_UNAVAILABLE,
            ImagesError::Inventory(InventoryError::Storage(_)) | ImagesError::Storage(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

/// An image, as it is told.
#[derive(Debug, Serialize)]
pub struct Entry {
    image: String,
    tags: Vec<Tag>,
    digest: Digest,
    platforms: Vec<String>,
    bytes: u64,
    shared_bytes: u64,
    last_used: Option<u64>,
    complete: bool,
    pinned: bool,
    stale: bool,
    upstream: Option<String>,
    hosted: bool,
}

impl Entry {
    fn cached(image: CachedImage) -> Entry {
        Entry {
            image: image.repository.to_string(),
            upstream: Some(image.repository.registry.to_string()),
            tags: image.tags,
            digest: image.root,
            platforms: texts(&image.platforms),
            bytes: image.bytes,
            shared_bytes: image.shared_bytes,
            last_used: Some(image.last_used),
            complete: image.complete,
            pinned: image.pinned,
            stale: image.stale,
            hosted: false,
        }
    }

    fn ours(image: HostedImage, last_used: Option<u64>) -> Entry {
        Entry {
            image: image.name.to_string(),
            tags: image.tags,
            digest: image.root,
            platforms: texts(&image.platforms),
            bytes: image.bytes,
            shared_bytes: image.shared_bytes,
            last_used,
            complete: image.complete,
            pinned: false,
            stale: false,
            upstream: None,
            hosted: true,
        }
    }

    fn key(&self) -> String {
        format!("{}@{}", self.image, self.digest)
    }

    fn has(&self, part: &str) -> bool {
        self.key().contains(part) || self.tags.iter().any(|tag| format!("{}:{tag}", self.image).contains(part))
    }
}

fn texts(platforms: &[Platform]) -> Vec<String> {
    platforms.iter().map(ToString::to_string).collect()
}

/// `?q=` part of a name, `?after=` the last one that is known (`image@digest`), `?n=` how many.
pub async fn list(served: &Served, query: Option<&str>) -> Result<Vec<Entry>, ImagesError> {
    let (part, after) = (query::value(query, "q").unwrap_or_default(), query::value(query, "after"));
    let limit = match query::value(query, "n") {
        Some(n) => n.parse::<usize>().map_err(|_| ImagesError::Query("/api/images?q=alpine&n=100"))?.min(MAX_PAGE),
        None => MAX_PAGE,
    };
    let cached = served.cache.inventory().images(&part, after.as_deref(), limit).await?;
    let mut entries: Vec<Entry> = cached.into_iter().map(Entry::cached).collect();
    if let Some(ours) = &served.ours {
        let (index, own) = (served.cache.store().index().clone(), ours.hosted.images().await?);
        let dated = move |image: HostedImage| {
            let last_used = index.blob(&image.root).map(|record| record.last_used);
            Entry::ours(image, last_used)
        };
        let own = task::blocking(move || own.into_iter().map(dated).collect::<Vec<Entry>>()).await;
        entries.extend(own.into_iter().filter(|entry| entry.has(&part) && Some(entry.key()) > after));
    }
    entries.sort_by_cached_key(Entry::key);
    entries.truncate(limit);
    Ok(entries)
}

/// What went, or would go, as it is told.
#[derive(Debug, Serialize)]
pub struct Removal {
    image: String,
    tags: Vec<Tag>,
    digests: Vec<Digest>,
    blobs: u64,
    bytes: u64,
    dry_run: bool,
}

/// `?image=` its name, without a tag its `latest`; `&all_tags=true` every tag of it; `&dry_run=true` changes nothing.
pub async fn remove(served: &Served, query: Option<&str>) -> Result<Removal, ImagesError> {
    let is = |key| query::value(query, key).is_some_and(|value| value == "true");
    let text = query::value(query, "image").ok_or(ImagesError::Query("/api/images?image=library/alpine:3.20"))?;
    let (image, dry_run): (ImageName, bool) = (text.parse()?, is("dry_run"));
    let repository = match served.home(&image) {
        Ok(Home::Ours(_, name)) => return Err(ImagesError::Hosted(name.to_string())),
        // What may not be pulled any more can be removed all the same.
        Ok(Home::Mirrored(repository)) | Err(RouteError::Denied(repository)) => repository,
        Err(error) => return Err(error.into()),
    };
    let which = match (is("all_tags"), &image.tag, &image.digest) {
        (true, None, None) => Which::AllTags,
        (true, ..) => return Err(ImagesError::Query("/api/images?image=library/alpine&all_tags=true, without a tag")),
        // A digest says more than the tag beside it.
        (false, ..) => Which::One(image.reference()),
    };
    let name = match (&which, image.reference()) {
        (Which::AllTags, _) => repository.to_string(),
        (_, Reference::Tag(tag)) => format!("{repository}:{tag}"),
        (_, Reference::Digest(digest)) => format!("{repository}@{digest}"),
    };
    let dropped = served.cache.inventory().remove(&repository, &which, dry_run).await?;
    let (blobs, bytes) = (dropped.removed.blobs, dropped.removed.bytes);
    Ok(Removal { image: name, tags: dropped.tags, digests: dropped.images, blobs, bytes, dry_run })
}
