//! Reading from the repositories that are ours: for the registry's own address, and, as far as a rule says `mirror = true`,
//! for the mirror's. Whether someone may is decided before.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::answer::Answer;
use super::body::Lying;
use super::endpoint::{Endpoint, Page, Wanted};
use super::error::ApiError;
use super::headers;
use super::listing::{MAX_PAGE, Tags, json, next_page};
use super::{blob, manifest};
use crate::access::Access;
use crate::hosted::{Hosted, HostedError};
use crate::oci::manifest::MAX_MANIFEST;
use crate::oci::{Digest, MediaType, Reference, RepoName};
use crate::server::FileSink;

/// Bytes that are looked at before an answer begins: while they are wrong, an honest error is possible.
const BEGINNING: u64 = 1 << 20;

/// Our own repositories, and who may do what with them. Clones share everything.
#[derive(Clone)]
pub struct Ours {
    /// What is in them.
    pub hosted: Hosted,
    /// Which names are ours, and who may.
    pub access: Access,
}

/// What of a request decides how content is sent.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// GET or HEAD.
    pub method: &'a Method,
    /// Ranges, and what the client has already.
    pub headers: &'a HeaderMap,
}

/// What the mirror's address answers about a name of ours. A name that it does not show is told as one that is not there.
pub async fn shown(
    ours: &Ours,
    name: &RepoName,
    endpoint: &Endpoint,
    asked_by: Asked<'_>,
    files: Option<FileSink>,
) -> Result<Answer, ApiError> {
    if ours.access.is_mirrored(name) {
        return read(&ours.hosted, name, endpoint, asked_by, files).await;
    }
    match endpoint {
        Endpoint::Referrers(asked, digest, wanted) => no_referrers(asked, digest, wanted, asked_by.method),
        _ => Err(ApiError::from_hosted(HostedError::NoRepository)),
    }
}

/// What a GET or HEAD of a repository's content comes to.
pub async fn read(
    hosted: &Hosted,
    name: &RepoName,
    endpoint: &Endpoint,
    asked_by: Asked<'_>,
    files: Option<FileSink>,
) -> Result<Answer, ApiError> {
    match endpoint {
        Endpoint::Manifest(_, reference) => get_manifest(hosted, name, reference, asked_by).await,
        Endpoint::Blob(_, digest) => get_blob(hosted, name, digest, asked_by, files).await,
        Endpoint::Tags(asked, page) => tags(hosted, name, asked, page, asked_by.method).await,
        Endpoint::Referrers(asked, digest, wanted) => {
            let found = hosted.referrers(name, digest).await.map_err(ApiError::from_hosted)?;
            referrers(found, asked, digest, wanted, asked_by.method)
        }
        Endpoint::Base | Endpoint::Catalog(_) | Endpoint::Probe(_) | Endpoint::Uploads(..) | Endpoint::Upload(..) => {
            Err(ApiError::from_hosted(HostedError::NoRepository))
        }
    }
}

async fn get_manifest(
    hosted: &Hosted,
    name: &RepoName,
    reference: &Reference,
    asked_by: Asked<'_>,
) -> Result<Answer, ApiError> {
    let found = hosted.manifest(name, reference).await.map_err(ApiError::from_hosted)?;
    let builder = manifest::described(&found.digest, reference);
    let (method, headers) = (asked_by.method, asked_by.headers);
    let response = manifest::whole(builder, &found.digest, found.media_type, found.bytes, method, headers)?;
    Ok(Answer::ours(response, found.digest))
}

async fn get_blob(
    hosted: &Hosted,
    name: &RepoName,
    digest: &Digest,
    asked_by: Asked<'_>,
    files: Option<FileSink>,
) -> Result<Answer, ApiError> {
    let response = if asked_by.method == Method::HEAD {
        let size = hosted.blob_size(name, digest).await.map_err(ApiError::from_hosted)?;
        blob::of_size(digest, size, asked_by.headers)?
    } else {
        let file = hosted.blob(name, digest).await.map_err(ApiError::from_hosted)?;
        let range = headers::range(asked_by.headers, digest).and_then(|range| range.of(file.size()));
        let start = range.map_or(0, |range| range.start);
        let beginning = file.extent(start, BEGINNING.min(file.size() - start) as usize);
        hosted.check(digest, &beginning).await.map_err(ApiError::from_hosted)?;
        blob::of_file(digest, Lying { hosted: hosted.clone(), digest: *digest, file }, asked_by.headers, files)?
    };
    Ok(Answer::ours(response, *digest))
}

async fn tags(
    hosted: &Hosted,
    name: &RepoName,
    asked: &RepoName,
    page: &Page,
    method: &Method,
) -> Result<Answer, ApiError> {
    let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let list = hosted.tags(name, page.last.as_deref(), n).await.map_err(ApiError::from_hosted)?;
    let next = list.entries.last().filter(|_| list.more).map(|tag| tag.as_str());
    let builder = next_page(Response::builder(), &format!("/v2/{asked}/tags/list"), Some(n), next, None);
    let response = json(builder, &Tags { name: asked, tags: &list.entries }, method)?;
    Ok(Answer::plain(response))
}

/// What is told of a repository that is not there, or not for the asker: Docker fails a pull on anything but a list.
pub fn no_referrers(asked: &RepoName, subject: &Digest, wanted: &Wanted, method: &Method) -> Result<Answer, ApiError> {
    referrers(Vec::new(), asked, subject, wanted, method)
}

fn referrers(
    mut found: Vec<(Digest, Value)>,
    asked: &RepoName,
    subject: &Digest,
    wanted: &Wanted,
    method: &Method,
) -> Result<Answer, ApiError> {
    if let Some(wanted) = &wanted.artifact_type {
        found.retain(|(_, descriptor)| descriptor.get("artifactType").is_some_and(|kind| kind == wanted));
    }
    if let Some(last) = &wanted.last {
        found.retain(|(digest, _)| digest > last);
    }
    let fits = fitting(&found);
    let more = fits < found.len();
    found.truncate(fits);
    let mut builder = Response::builder().header(header::CONTENT_TYPE, MediaType::OciIndex.as_str());
    if let Some((last, _)) = found.last().filter(|_| more) {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let kind = wanted.artifact_type.as_deref().map(|kind| format!("artifactType={}&", encode(kind)));
        let kind = kind.unwrap_or_default();
        builder =
            builder.header(header::LINK, format!("</v2/{asked}/referrers/{subject}?{kind}last={last}>; rel=\"next\""));
    }
    if wanted.artifact_type.is_some() {
        builder = builder.header(headers::FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    let manifests: Vec<&Value> = found.iter().map(|(_, descriptor)| descriptor).collect();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OciIndex.as_str(),
        "manifests": manifests,
    });
    Ok(Answer::ours(json(builder, &index, method)?, *subject))
}

/// How many of them make a list that is no longer than a manifest may be, which clients count on.
fn fitting(found: &[(Digest, Value)]) -> usize {
    let mut length = 1024;
    let fits = found.iter().take_while(|(_, descriptor)| {
        length += descriptor.to_string().len() + 1;
        length <= MAX_MANIFEST
    });
    // One that is too long by itself is sent all the same.
    fits.count().max(found.len().min(1))
}
