//! Manifests: GET and HEAD, by tag and by digest.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};

use super::answer::{Answer, finish};
use super::body;
use super::error::{ApiError, Wanted};
use super::headers::{self, Lifetime};
use crate::cache::{Cache, OnBehalfOf, Purpose};
use crate::oci::{Digest, MediaType, Reference, Repository};

/// The manifest that `reference` means. Its type does not depend on what the client accepts: a tag is what it is.
pub async fn get(
    cache: &Cache,
    repository: &Repository,
    reference: &Reference,
    method: &Method,
    request: &HeaderMap,
    client: IpAddr,
) -> Result<Answer, ApiError> {
    let purpose = if method == Method::HEAD { Purpose::Look } else { Purpose::Pull };
    let found = cache
        .manifest(repository, reference, purpose, OnBehalfOf::Client(client))
        .await
        .map_err(|error| ApiError::from_cache(error, Wanted::Manifest(&repository.name, reference)))?;
    let (manifest, outcome, is_fallback) = (found.manifest, found.outcome, found.is_fallback);
    let builder = headers::stale(described(&manifest.digest, reference), found.stale.as_ref());
    let response = whole(builder, &manifest.digest, manifest.media_type, manifest.bytes, method, request)?;
    Ok(Answer { response, outcome: Some(outcome), subject: Some(manifest.digest), is_fallback })
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
