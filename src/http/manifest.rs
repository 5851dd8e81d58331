//! Manifests: GET and HEAD, by tag and by digest.

use bytes::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};

use super::answer::{Answer, finish};
use super::body;
use super::error::{ApiError, Resource};
use super::headers::{self, Lifetime};
use crate::cache::{Cache, Purpose};
use crate::oci::{Digest, MediaType, Reference, Repository};

/// The manifest that `reference` means. Its type does not depend on what the client accepts: a tag is what it is.
pub async fn get(
    cache: &Cache,
    repository: &Repository,
    reference: &Reference,
    method: &Method,
    request: &HeaderMap,
) -> Result<Answer, ApiError> {
    let found = cache
        .manifest(repository, reference, if method == Method::HEAD { Purpose::Look } else { Purpose::Pull })
        .await
        .map_err(|error| ApiError::from_cache(error, Resource::Manifest))?;
    let (manifest, outcome) = (found.manifest, found.outcome);
    let builder = headers::stale(described(&manifest.digest, reference), outcome, found.age);
    let response = whole(builder, &manifest.digest, manifest.media_type, manifest.bytes, method, request)?;
    Ok(Answer { response, outcome: Some(outcome), subject: Some(manifest.digest) })
}

/// The headers of a manifest that was asked for by `reference`.
pub fn described(digest: &Digest, reference: &Reference) -> Builder {
    let lifetime = match reference {
        Reference::Digest(_) => Lifetime::Immutable,
        Reference::Tag(_) => Lifetime::Changing,
    };
    headers::content(Response::builder(), digest, lifetime)
}

/// A manifest, unless the client has it.
pub fn whole(
    builder: Builder,
    digest: &Digest,
    media_type: MediaType,
    bytes: Bytes,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response<body::Body>, ApiError> {
    if headers::has(request, digest) {
        return not_modified(builder);
    }
    let builder = builder.header(header::CONTENT_TYPE, media_type.as_str()).header(header::CONTENT_LENGTH, bytes.len());
    finish(builder, if method == Method::HEAD { body::empty() } else { body::full(bytes) })
}

/// 304: the headers that the content would have had, and no content.
pub fn not_modified(builder: Builder) -> Result<Response<body::Body>, ApiError> {
    finish(builder.status(StatusCode::NOT_MODIFIED), body::empty())
}
