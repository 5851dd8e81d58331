//! What `larder import --cache` brings to a running server: an image's blobs, then its manifests, then its tag. Each names the
//! repository that it is for, which has to be one that is mirrored.

use std::error::Error;
use std::str::FromStr;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Request, Response, StatusCode};
use thiserror::Error;

use super::query;
use super::served::{Home, Served, is_mirrored};
use super::told::{Body, json, text};
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, ImageName, ImageNameError, Manifest, ManifestError, Repository, Tag};
use crate::routing::RouteError;
use crate::storage::StorageError;

/// Where all of it is.
pub(super) const PREFIX: &str = "/api/intake/";

/// Why something is not taken.
#[derive(Debug, Error)]
enum IntakeError {
    /// Something is missing in the query, or is none.
    #[error("there is no {0} in the query, or it is none")]
    Query(&'static str),
    /// It names no image.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// It belongs to no registry that is mirrored.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// It is ours.
    #[error("{0} is in your own registry: import it without --cache")]
    Hosted(String),
    /// It is not what a client would be given from upstream.
    #[error("{0} is not mirrored here")]
    NotMirrored(Repository),
    /// The rest did not come.
    #[error("it did not arrive whole: {0}")]
    Body(Box<dyn Error + Send + Sync>),
    /// It is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It is not what its digest says, there is no room, or the disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl IntakeError {
    fn status(&self) -> StatusCode {
        match self {
            IntakeError::Query(_) | IntakeError::Name(_) | IntakeError::Body(_) => StatusCode::BAD_REQUEST,
            IntakeError::Route(_) | IntakeError::NotMirrored(_) => StatusCode::NOT_FOUND,
            IntakeError::Hosted(_) => StatusCode::CONFLICT,
            IntakeError::Manifest(_) | IntakeError::Storage(StorageError::DigestMismatch { .. }) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            IntakeError::Storage(StorageError::SizeMismatch { .. }) => StatusCode::BAD_REQUEST,
            IntakeError::Storage(StorageError::NoRoom | StorageError::NoSpace { .. } | StorageError::Uncounted) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            IntakeError::Storage(StorageError::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            IntakeError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Answers who brings something below [`PREFIX`] and may.
pub(super) async fn take<B>(served: &Served, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let below = request.uri().path().trim_start_matches(PREFIX).to_owned();
    let done = match below.as_str() {
        "repository" => repository(served, request.uri().query()).map(|repository| json(&repository.to_string())),
        "have" => have(served, request.uri().query()).await.map(|has| json(&has)),
        "blob" => blob(served, request).await.map(|()| json(&true)),
        "manifest" => manifest(served, request).await.map(|()| json(&true)),
        "tag" => tag(served, request.uri().query()).await.map(|()| json(&true)),
        _ => return text(StatusCode::NOT_FOUND, "no such page\n"),
    };
    done.unwrap_or_else(|error| text(error.status(), format!("{error}\n")))
}

/// The repository in which an image is upstream.
fn repository(served: &Served, query: Option<&str>) -> Result<Repository, IntakeError> {
    let image: ImageName = query::value(query, "image").ok_or(IntakeError::Query("image"))?.parse()?;
    match served.home(&image)? {
        Home::Ours(_, name) => Err(IntakeError::Hosted(name.to_string())),
        Home::Mirrored(repository) => Ok(repository),
    }
}

/// Whether a blob is here; and if it is not, that there is room for it.
async fn have(served: &Served, query: Option<&str>) -> Result<bool, IntakeError> {
    let (repository, digest, size) = (destination(served, query)?, named::<Digest>(query, "digest")?, size(query)?);
    let intake = served.cache.intake();
    let has = intake.has(&repository, &digest).await?;
    if !has {
        drop(intake.begin(&digest, size).await?);
    }
    Ok(has)
}

async fn blob<B>(served: &Served, request: Request<B>) -> Result<(), IntakeError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let query = request.uri().query();
    let (repository, digest, size) = (destination(served, query)?, named::<Digest>(query, "digest")?, size(query)?);
    let mut arriving = served.cache.intake().begin(&digest, size).await?;
    let mut body = Box::pin(request.into_body());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| IntakeError::Body(error.into()))?;
        if let Ok(piece) = frame.into_data() {
            arriving = arriving.append(piece).await?;
        }
    }
    Ok(arriving.finish(&repository).await?)
}

async fn manifest<B>(served: &Served, request: Request<B>) -> Result<(), IntakeError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let query = request.uri().query();
    let (repository, digest) = (destination(served, query)?, named::<Digest>(query, "digest")?);
    let body = Limited::new(request.into_body(), MAX_MANIFEST).collect().await.map_err(IntakeError::Body)?;
    let bytes = body.to_bytes();
    let media_type = Manifest::parse(&bytes)?.media_type;
    Ok(served.cache.intake().manifest(&repository, &digest, media_type, bytes).await?)
}

async fn tag(served: &Served, query: Option<&str>) -> Result<(), IntakeError> {
    let (repository, digest) = (destination(served, query)?, named::<Digest>(query, "digest")?);
    let tag = named::<Tag>(query, "tag")?;
    Ok(served.cache.intake().tag(&repository, &tag, &digest).await?)
}

/// The repository that something is for.
fn destination(served: &Served, query: Option<&str>) -> Result<Repository, IntakeError> {
    let repository: Repository = named(query, "repository")?;
    let is_mirrored = is_mirrored(&served.routes, served.ours.as_ref(), &repository);
    if is_mirrored { Ok(repository) } else { Err(IntakeError::NotMirrored(repository)) }
}

fn size(query: Option<&str>) -> Result<u64, IntakeError> {
    named(query, "size")
}

fn named<T: FromStr>(query: Option<&str>, key: &'static str) -> Result<T, IntakeError> {
    query::value(query, key).and_then(|text| text.parse().ok()).ok_or(IntakeError::Query(key))
}
