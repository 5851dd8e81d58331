//! Manifests on their way in (distribution-spec, "Pushing manifests"), and out of a repository.

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::payload::Payload;
use crate::access::Access;
use crate::hosted::{Hosted, NewManifest};
use crate::http::answer::{Answer, finish};
use crate::http::body;
use crate::http::error::ApiError;
use crate::http::headers::CONTENT_DIGEST;
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Reference, RepoName, Tag};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAGS: HeaderName = HeaderName::from_static("oci-tag");

/// PUT: takes a manifest.
pub async fn put<B>(
    hosted: &Hosted,
    access: &Access,
    name: &RepoName,
    (reference, tags): (&Reference, &[Tag]),
    headers: &HeaderMap,
    payload: &mut Payload<B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let bytes = payload.whole(MAX_MANIFEST).await?;
    let media_type = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
    let own = match reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    };
    let immutable = own.into_iter().chain(tags).filter(|tag| access.is_immutable(name, tag)).cloned().collect();
    let new =
        NewManifest { media_type, bytes, reference: reference.clone(), tags: tags.to_vec(), immutable, adopts: false };
    let accepted = hosted.put_manifest(name, new).await.map_err(ApiError::from_hosted)?;
    let digest = accepted.digest;
    let mut builder = Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/manifests/{digest}"))
        .header(CONTENT_DIGEST, digest.to_string())
        .header(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    if let Some(subject) = accepted.subject {
        builder = builder.header(SUBJECT, subject.to_string());
    }
    if !tags.is_empty() {
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        builder = builder.header(TAGS, tags.join(", "));
    }
    Ok(Answer::ours(finish(builder, body::empty())?, digest))
}

/// DELETE: takes away a tag, or a manifest with its tags.
pub async fn delete(hosted: &Hosted, name: &RepoName, reference: &Reference) -> Result<Answer, ApiError> {
    hosted.delete_manifest(name, reference).await.map_err(ApiError::from_hosted)?;
    let builder =
        Response::builder().status(StatusCode::ACCEPTED).header(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    finish(builder, body::empty()).map(Answer::plain)
}
