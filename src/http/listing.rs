//! Lists: tags, referrers, the catalogue of what is cached.

use std::net::IpAddr;

use hyper::header::{self, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Method, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::answer::{Answer, finish};
use super::body;
use super::endpoint::Page;
use super::error::{ApiError, Wanted};
use super::headers;
use crate::cache::{Cache, CacheError, OnBehalfOf, Outcome};
use crate::oci::{Digest, ErrorCode, MediaType, RepoName, Repository};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Most entries of a list in one answer, whatever the client asks for.
pub const MAX_PAGE: usize = 1000;

/// A list of tags.
#[derive(Serialize)]
pub struct Tags<'a> {
    /// The repository's name, as the client knows it.
    pub name: &'a RepoName,
    /// Its tags.
    pub tags: &'a [crate::oci::Tag],
}

/// The tags of a repository. `asked` is the name that the client knows it by.
pub async fn tags(
    cache: &Cache,
    repository: &Repository,
    asked: &RepoName,
    page: &Page,
    namespace: Option<&str>,
    method: &Method,
) -> Result<Answer, ApiError> {
    let n = page.n.map(|n| n.min(MAX_PAGE));
    if n == Some(0) {
        let response = json(Response::builder(), &Tags { name: asked, tags: &[] }, method)?;
        return Ok(Answer::plain(response));
    }
    let list = cache
        .tags(repository, n, page.last.as_deref())
        .await
        .map_err(|error| ApiError::from_cache(error, Wanted::Tags(&repository.name)))?;
    let builder = headers::stale(Response::builder(), list.stale.as_ref());
    let next = list.tags.last().filter(|_| list.more);
    let builder = next_page(builder, &format!("/v2/{asked}/tags/list"), n, next.map(|tag| tag.as_str()), namespace);
    let response = json(builder, &Tags { name: asked, tags: &list.tags }, method)?;
    Ok(Answer { response, outcome: Some(list.outcome), subject: None, is_fallback: false })
}

/// What refers to a manifest: always a list.
pub async fn referrers(
    cache: &Cache,
    repository: &Repository,
    digest: &Digest,
    artifact_type: Option<&str>,
    method: &Method,
    client: IpAddr,
) -> Result<Answer, ApiError> {
    let mut list = cache
        .referrers(repository, digest, OnBehalfOf::Client(client))
        .await
        .map_err(|error: CacheError| ApiError::from_cache(error, Wanted::Referrers(digest)))?;
    let mut builder = headers::stale(Response::builder(), list.stale.as_ref());
    if let Some(artifact_type) = artifact_type {
        list.index.retain(artifact_type);
        builder = builder.header(headers::FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    let builder = builder.header(header::CONTENT_TYPE, MediaType::OciIndex.as_str());
    let response = json(builder, &list.index, method)?;
    Ok(Answer { response, outcome: Some(list.outcome), subject: Some(*digest), is_fallback: false })
}

/// The repositories of which something is cached, under the names by which this mirror can be asked for them.
pub async fn catalog(cache: &Cache, page: &Page, method: &Method) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Repositories {
        repositories: Vec<String>,
    }
    let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let after = match &page.last {
        Some(last) => Some(parse_repository(last).ok_or_else(|| {
            ApiError::bad_request("last must be a repository as this catalogue lists them: registry/name")
        })?),
        None => None,
    };
    let found = if n == 0 { Ok(Vec::new()) } else { cache.repositories(after, n + 1).await };
    let mut found = found.map_err(|error| ApiError::from_cache(error, Wanted::Catalog))?;
    let more = found.len() > n;
    found.truncate(n);
    let repositories: Vec<String> = found.iter().map(Repository::to_string).collect();
    let next = repositories.last().filter(|_| more).map(String::as_str);
    let builder = next_page(Response::builder(), "/v2/_catalog", Some(n), next, None);
    let response = json(builder, &Repositories { repositories: repositories.clone() }, method)?;
    Ok(Answer { response, outcome: Some(Outcome::Hit), subject: None, is_fallback: false })
}

fn parse_repository(text: &str) -> Option<Repository> {
    let (registry, name) = text.split_once('/')?;
    Some(Repository { registry: registry.parse().ok()?, name: name.parse().ok()? })
}

/// Where the list goes on, if it does. A relative address, because a proxy in front may have another scheme and host than we know of.
pub fn next_page(builder: Builder, path: &str, n: Option<usize>, last: Option<&str>, ns: Option<&str>) -> Builder {
    let Some(last) = last else { return builder };
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let n = n.map(|n| format!("n={n}&")).unwrap_or_default();
    let ns = ns.map(|ns| format!("&ns={}", encode(ns))).unwrap_or_default();
    builder.header(header::LINK, format!("<{path}?{n}last={}{ns}>; rel=\"next\"", encode(last)))
}

/// A list as JSON, or what would be said of it.
pub fn json(builder: Builder, value: &impl Serialize, method: &Method) -> Result<Response<body::Body>, ApiError> {
    let text = serde_json::to_vec(value).map_err(|error| ApiError::new(ErrorCode::Unknown, error.to_string()))?;
    let typed = builder.headers_ref().is_some_and(|headers| headers.contains_key(header::CONTENT_TYPE));
    let builder = if typed { builder } else { builder.header(header::CONTENT_TYPE, JSON) };
    let builder = builder.header(header::CONTENT_LENGTH, text.len());
    finish(builder, if method == Method::HEAD { body::empty() } else { body::full(text) })
}
