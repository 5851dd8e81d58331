//! Manifests: GET and HEAD, by tag and by digest.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap};
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};

use super::answer::{Answer, finish};
use super::body;
use super::error::{ApiError, Wanted};
use super::headers::{self, Lifetime};
use crate::cache::{Cache, OnBehalfOf, Purpose};
use crate::oci::{Reference, Repository};

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
    let lifetime = match reference {
        Reference::Digest(_) => Lifetime::Immutable,
        Reference::Tag(_) => Lifetime::Changing,
    };
    let (manifest, outcome, is_fallback) = (found.manifest, found.outcome, found.is_fallback);
    let builder = headers::content(Response::builder(), &manifest.digest, lifetime);
    let builder = headers::stale(builder, found.stale.as_ref());
    let subject = Some(manifest.digest);
    if headers::has(request, &manifest.digest) {
        return Ok(Answer { response: not_modified(builder)?, outcome: Some(outcome), subject, is_fallback });
    }
    let builder = builder
        .header(header::CONTENT_TYPE, manifest.media_type.as_str())
        .header(header::CONTENT_LENGTH, manifest.bytes.len());
    let body = if method == Method::HEAD { body::empty() } else { body::full(manifest.bytes) };
    Ok(Answer { response: finish(builder, body)?, outcome: Some(outcome), subject, is_fallback })
}

/// 304: the headers that the content would have had, and no content.
pub fn not_modified(builder: Builder) -> Result<Response<body::Body>, ApiError> {
    finish(builder.status(StatusCode::NOT_MODIFIED), body::empty())
}
