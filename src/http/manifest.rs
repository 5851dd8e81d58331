//! Manifests: GET and HEAD, by tag and by digest.

use hyper::header::{self, HeaderMap};
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};

use super::answer::{Answer, finish};
use super::body;
use super::error::{ApiError, Resource};
use super::headers::{self, Lifetime};
use crate::cache::{Cache, Purpose};
use crate::oci::{Reference, Repository};

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
    let lifetime = match reference {
        Reference::Digest(_) => Lifetime::Immutable,
        Reference::Tag(_) => Lifetime::Changing,
    };
    let (manifest, outcome) = (found.manifest, found.outcome);
    let builder = headers::content(Response::builder(), &manifest.digest, lifetime);
    let builder = headers::stale(builder, outcome, found.age);
    let subject = Some(manifest.digest);
    if headers::has(request, &manifest.digest) {
        return Ok(Answer { response: not_modified(builder)?, outcome: Some(outcome), subject });
    }
    let builder = builder
        .header(header::CONTENT_TYPE, manifest.media_type.as_str())
        .header(header::CONTENT_LENGTH, manifest.bytes.len());
    let body = if method == Method::HEAD { body::empty() } else { body::full(manifest.bytes) };
    Ok(Answer { response: finish(builder, body)?, outcome: Some(outcome), subject })
}

/// 304: the headers that the content would have had, and no content.
pub fn not_modified(builder: Builder) -> Result<Response<body::Body>, ApiError> {
    finish(builder.status(StatusCode::NOT_MODIFIED), body::empty())
}
