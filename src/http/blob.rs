//! Blobs: GET, HEAD, and one range.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode, Version};

use super::answer::{Answer, finish};
use super::body::{self, Lying};
use super::error::{ApiError, Wanted};
use super::headers::{self, Lifetime};
use super::manifest::not_modified;
use crate::cache::{Blob, Cache, CacheError};
use crate::oci::{ByteRange, Digest, Repository};
use crate::server::FileSink;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// The blob of `digest`, or a part of it.
pub async fn get<B>(
    cache: &Cache,
    repository: &Repository,
    digest: &Digest,
    request: &Request<B>,
    files: Option<FileSink>,
) -> Result<Answer, ApiError> {
    let failed = |error: CacheError| ApiError::from_cache(error, Wanted::Blob(digest));
    let has = headers::has(request.headers(), digest);
    let subject = Some(*digest);
    if request.method() == Method::HEAD {
        let (size, outcome) = cache.blob_size(repository, digest).await.map_err(failed)?;
        let builder = described(digest, Lifetime::Immutable);
        let response = if has { not_modified(builder)? } else { finish(sized(builder, size), body::empty())? };
        return Ok(Answer { response, outcome: Some(outcome), subject, is_fallback: false });
    }
    let wanted = headers::range(request.headers(), digest);
    let mut blob = cache.blob(repository, digest, wanted).await.map_err(failed)?;
    let outcome = Some(blob.outcome);
    if has {
        return Ok(Answer {
            response: not_modified(described(digest, Lifetime::Immutable))?,
            outcome,
            subject,
            is_fallback: false,
        });
    }
    if blob.size.is_none() && request.version() < Version::HTTP_11 {
        // There an end is an end, a cut one, too: it gets the blob when it is whole.
        blob.kept().await.map_err(failed)?;
        blob = cache.blob(repository, digest, wanted).await.map_err(failed)?;
    }
    // Of a blob whose length is not known yet no part can be named: the whole is a right answer to any range.
    let response = match wanted.zip(blob.size) {
        None => whole(digest, blob, files)?,
        Some((range, size)) => {
            let range = range.of(size).ok_or_else(|| ApiError::unsatisfiable(size))?;
            part(digest, blob, files, range, size)?
        }
    };
    Ok(Answer { response, outcome, subject, is_fallback: false })
}

/// A blob that lies here complete, or a part of it: for the repositories that are ours.
pub fn of_file(
    digest: &Digest,
    blob: Lying,
    request: &HeaderMap,
    files: Option<FileSink>,
) -> Result<Response<body::Body>, ApiError> {
    let (builder, size) = (described(digest, Lifetime::Immutable), blob.file.size());
    if headers::has(request, digest) {
        return not_modified(builder);
    }
    match headers::range(request, digest) {
        None => finish(sized(builder, Some(size)), body::file(blob, ByteRange { start: 0, end: size }, files)),
        Some(range) => {
            let range = range.of(size).ok_or_else(|| ApiError::unsatisfiable(size))?;
            finish(partial(builder, range, size), body::file(blob, range, files))
        }
    }
}

/// That a blob is there, and how long it is.
pub fn of_size(digest: &Digest, size: u64, request: &HeaderMap) -> Result<Response<body::Body>, ApiError> {
    let builder = described(digest, Lifetime::Immutable);
    if headers::has(request, digest) {
        not_modified(builder)
    } else {
        finish(sized(builder, Some(size)), body::empty())
    }
}

fn partial(builder: Builder, range: ByteRange, size: u64) -> Builder {
    builder
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, range.content_range(size))
        .header(header::CONTENT_LENGTH, range.length())
}

fn described(digest: &Digest, lifetime: Lifetime) -> Builder {
    headers::content(Response::builder(), digest, lifetime)
        .header(header::CONTENT_TYPE, OCTETS)
        .header(header::ACCEPT_RANGES, BYTES)
}

fn sized(builder: Builder, size: Option<u64>) -> Builder {
    size.into_iter().fold(builder, |builder, size| builder.header(header::CONTENT_LENGTH, size))
}

fn whole(digest: &Digest, blob: Blob, files: Option<FileSink>) -> Result<Response<body::Body>, ApiError> {
    let files = files.filter(|_| blob.size.is_some() && blob.is_on_disk());
    let builder = sized(described(digest, Lifetime::Immutable), blob.size);
    finish(builder, body::blob(blob.read(None), files))
}

fn part(
    digest: &Digest,
    blob: Blob,
    files: Option<FileSink>,
    range: ByteRange,
    size: u64,
) -> Result<Response<body::Body>, ApiError> {
    // A part of what is still on its way is not verified yet: nobody may keep it for that.
    let files = files.filter(|_| blob.is_on_disk());
    let lifetime = if blob.is_kept() { Lifetime::Immutable } else { Lifetime::Changing };
    finish(partial(described(digest, lifetime), range, size), body::blob(blob.read(Some(range)), files))
}
