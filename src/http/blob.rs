//! Blobs: GET, HEAD, and one range.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};

use super::answer::{Answer, finish};
use super::body;
use super::error::{ApiError, Resource};
use super::headers::{self, Lifetime};
use super::manifest::not_modified;
use crate::cache::{Blob, Cache, CacheError};
use crate::oci::{ByteRange, Digest, Repository};
use crate::server::FileSink;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// The blob of `digest`, or a part of it.
pub async fn get(
    cache: &Cache,
    repository: &Repository,
    digest: &Digest,
    method: &Method,
    request: &HeaderMap,
    files: Option<FileSink>,
) -> Result<Answer, ApiError> {
    let failed = |error: CacheError| ApiError::from_cache(error, Resource::Blob);
    let builder = headers::content(Response::builder(), digest, Lifetime::Immutable)
        .header(header::CONTENT_TYPE, OCTETS)
        .header(header::ACCEPT_RANGES, BYTES);
    let subject = Some(*digest);
    if method == Method::HEAD {
        let (size, outcome) = cache.blob_size(repository, digest).await.map_err(failed)?;
        let builder = size.into_iter().fold(builder, |builder, size| builder.header(header::CONTENT_LENGTH, size));
        return Ok(Answer { response: finish(builder, body::empty())?, outcome: Some(outcome), subject });
    }
    let blob = cache.blob(repository, digest).await.map_err(failed)?;
    let outcome = Some(blob.outcome);
    if headers::has(request, digest) {
        return Ok(Answer { response: not_modified(builder)?, outcome, subject });
    }
    // Of a blob whose length is not known yet no part can be named: the whole is a right answer to any range.
    let wanted = headers::range(request, digest).zip(blob.size);
    let response = match wanted {
        None => whole(builder, blob, files)?,
        Some((range, size)) => match range.of(size) {
            Some(range) => part(builder, blob, files, range, size)?,
            None => unsatisfiable(builder, size)?,
        },
    };
    Ok(Answer { response, outcome, subject })
}

fn whole(builder: Builder, blob: Blob, files: Option<FileSink>) -> Result<Response<body::Body>, ApiError> {
    let files = files.filter(|_| blob.size.is_some());
    let builder = blob.size.into_iter().fold(builder, |builder, size| builder.header(header::CONTENT_LENGTH, size));
    finish(builder, body::blob(blob.read(None), files))
}

fn part(
    builder: Builder,
    blob: Blob,
    files: Option<FileSink>,
    range: ByteRange,
    size: u64,
) -> Result<Response<body::Body>, ApiError> {
    let builder = builder
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, range.content_range(size))
        .header(header::CONTENT_LENGTH, range.length());
    finish(builder, body::blob(blob.read(Some(range)), files))
}

fn unsatisfiable(builder: Builder, size: u64) -> Result<Response<body::Body>, ApiError> {
    let builder = builder
        .status(StatusCode::RANGE_NOT_SATISFIABLE)
        .header(header::CONTENT_RANGE, format!("bytes */{size}"))
        .header(header::CONTENT_LENGTH, 0);
    finish(builder, body::empty())
}
