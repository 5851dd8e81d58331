//! Blobs on their way in (distribution-spec, "Pushing blobs"), and out of a repository.

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Response, StatusCode};

use super::admission::Asker;
use super::payload::Payload;
use crate::access::{Access, Action};
use crate::hosted::{ChunkRange, Hosted, HostedError, Pusher};
use crate::http::answer::{Answer, finish};
use crate::http::body;
use crate::http::endpoint::Begin;
use crate::http::error::ApiError;
use crate::http::headers::CONTENT_DIGEST;
use crate::oci::{Algorithm, Digest, ErrorCode, RepoName};
use crate::storage::UploadId;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST: begins an upload, takes a blob in one go, or takes it from another repository.
pub async fn begin<B>(
    hosted: &Hosted,
    access: &Access,
    asker: &Asker<'_>,
    name: &RepoName,
    begin: &Begin,
    payload: &mut Payload<B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let who = pusher(asker, name);
    if let Some(digest) = &begin.mount {
        // Knowing a digest is no right to read it: it is taken only from where the asker may pull.
        let readable = |from: &RepoName| access.may(&asker.who, from, Action::Pull);
        let mounted = hosted.mount(begin.from.as_ref(), name, digest, readable).await;
        if mounted.map_err(ApiError::from_hosted)? {
            return created(name, digest);
        }
    } else if let Some(digest) = &begin.digest {
        hosted.push_blob(&who, payload.stream(), *digest).await.map_err(ApiError::from_hosted)?;
        return created(name, digest);
    }
    let algorithm = begin.algorithm.unwrap_or(Algorithm::Sha256);
    let id = hosted.begin_upload(&who, algorithm).await.map_err(ApiError::from_hosted)?;
    empty(standing(Response::builder().status(StatusCode::ACCEPTED), name, &id, 0))
}

/// PATCH: takes in more.
pub async fn append<B>(
    hosted: &Hosted,
    asker: &Asker<'_>,
    name: &RepoName,
    id: &UploadId,
    headers: &HeaderMap,
    payload: &mut Payload<B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (who, range) = (pusher(asker, name), chunk_range(headers)?);
    match hosted.append(&who, id, range, payload.stream()).await {
        Ok(received) => empty(standing(Response::builder().status(StatusCode::ACCEPTED), name, id, received)),
        Err(error) => Err(refused(error, name, id)),
    }
}

/// PUT: takes in the rest, and makes it a blob.
pub async fn complete<B>(
    hosted: &Hosted,
    asker: &Asker<'_>,
    name: &RepoName,
    (id, digest): (&UploadId, Option<Digest>),
    headers: &HeaderMap,
    payload: &mut Payload<B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let message = "the digest is missing: add ?digest= to the upload's address";
    let digest = digest.ok_or_else(|| ApiError::new(ErrorCode::DigestInvalid, message))?;
    let (who, range) = (pusher(asker, name), chunk_range(headers)?);
    match hosted.finish_upload(&who, id, range, payload.stream(), digest).await {
        Ok(()) => created(name, &digest),
        Err(error) => Err(refused(error, name, id)),
    }
}

/// GET: how far it is.
pub async fn status(hosted: &Hosted, asker: &Asker<'_>, name: &RepoName, id: &UploadId) -> Result<Answer, ApiError> {
    let received = hosted.upload_status(&pusher(asker, name), id).await.map_err(ApiError::from_hosted)?;
    finish(standing(Response::builder().status(StatusCode::NO_CONTENT), name, id, received), body::empty())
        .map(Answer::plain)
}

/// DELETE: ends it.
pub async fn cancel(hosted: &Hosted, asker: &Asker<'_>, name: &RepoName, id: &UploadId) -> Result<Answer, ApiError> {
    hosted.cancel_upload(&pusher(asker, name), id).await.map_err(ApiError::from_hosted)?;
    finish(Response::builder().status(StatusCode::NO_CONTENT), body::empty()).map(Answer::plain)
}

/// DELETE of a blob.
pub async fn delete_blob(hosted: &Hosted, name: &RepoName, digest: &Digest) -> Result<Answer, ApiError> {
    hosted.delete_blob(name, digest).await.map_err(ApiError::from_hosted)?;
    let mut answer = empty(Response::builder().status(StatusCode::ACCEPTED))?;
    answer.subject = Some(*digest);
    Ok(answer)
}

fn pusher(asker: &Asker<'_>, name: &RepoName) -> Pusher {
    Pusher { repository: name.clone(), owner: asker.owner() }
}

/// A blob is there, and where. Relative, because a proxy in front may have another scheme and host than we know of.
fn created(name: &RepoName, digest: &Digest) -> Result<Answer, ApiError> {
    let builder = Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header(CONTENT_DIGEST, digest.to_string());
    let mut answer = empty(builder)?;
    answer.subject = Some(*digest);
    Ok(answer)
}

/// An upload's address, and how far it is. Docker wants two numbers in any case.
fn standing(builder: Builder, name: &RepoName, id: &UploadId, received: u64) -> Builder {
    builder
        .header(header::LOCATION, location(name, id))
        .header(header::RANGE, range(received))
        .header(UPLOAD_UUID, id.to_string())
}

fn location(name: &RepoName, id: &UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

fn range(received: u64) -> String {
    format!("0-{}", received.saturating_sub(1))
}

fn empty(builder: Builder) -> Result<Answer, ApiError> {
    let builder = builder.header(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    finish(builder, body::empty()).map(Answer::plain)
}

/// A chunk that came out of order is told where the upload stands, which it is still good for.
fn refused(error: HostedError, name: &RepoName, id: &UploadId) -> ApiError {
    let stands = match &error {
        HostedError::OutOfOrder { received } => Some(*received),
        _ => None,
    };
    let error = ApiError::from_hosted(error);
    match stands {
        Some(received) => error.with(header::LOCATION, location(name, id)).with(header::RANGE, range(received)),
        None => error,
    }
}

/// `Content-Range: <first>-<last>`, as the specification writes it, or with HTTP's own unit before and total behind.
fn chunk_range(headers: &HeaderMap) -> Result<Option<ChunkRange>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(parse_chunk_range);
    let range = parsed.ok_or_else(|| {
        ApiError::new(ErrorCode::BlobUploadInvalid, "write Content-Range as <first byte>-<last byte>, without a unit")
    })?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| range.last - range.first != length.wrapping_sub(1)) {
        return Err(ApiError::from_hosted(HostedError::WrongLength));
    }
    Ok(Some(range))
}

fn parse_chunk_range(text: &str) -> Option<ChunkRange> {
    let text = text.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let (first, last) = text.split_once('/').map_or(text, |(range, _total)| range).split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let range = ChunkRange { first: number(first)?, last: number(last)? };
    (range.first <= range.last).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_its_first_and_its_last_byte() {
        for (text, range) in [
            ("0-0", Some((0, 0))),
            ("10-19", Some((10, 19))),
            ("bytes 10-19/*", Some((10, 19))),
            ("19-10", None),
            ("-5", None),
            ("5-", None),
            ("+1-2", None),
            ("0-99999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(parse_chunk_range(text).map(|range| (range.first, range.last)), range, "{text}");
        }
    }
}
