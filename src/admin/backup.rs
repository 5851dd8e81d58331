//! What `larder backup` asks a running server for: repositories, what each has, content piece by piece, and what is pinned.
//!
//! Whoever gets this gets every private image. So it is asked for by POST, and takes the permission that changing something
//! takes, although it changes nothing.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::told::{Body, json, text};
use crate::backup::{Local, Source, SourceError};
use crate::oci::{Digest, RepoName};

/// Where all of it is.
pub(super) const PREFIX: &str = "/api/backup/";

/// Answers who asks for something below [`PREFIX`] and may have it.
pub(super) async fn give(local: &Local, below: &str, query: Option<&str>) -> Response<Body> {
    let done = match below.split_once('/') {
        None if below == "repositories" => local.repositories().await.map(|names| json(&names)),
        None if below == "pins" => local.pins().await.map(|pins| json(&pins)),
        Some(("repositories", name)) => match name.parse::<RepoName>() {
            Ok(name) => {
                local.listing(&name).await.map(|listing| of_type(listing.to_index().to_json(), "application/json"))
            }
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        Some(("content", digest)) => match piece(digest, query.unwrap_or_default()) {
            Some((name, digest, from)) => {
                local.piece(&name, &digest, from).await.map(|bytes| of_type(bytes, "application/octet-stream"))
            }
            None => return text(StatusCode::BAD_REQUEST, "content/DIGEST?repository=NAME&from=BYTE\n"),
        },
        _ => return text(StatusCode::NOT_FOUND, "no such page\n"),
    };
    done.unwrap_or_else(|error| {
        let status = match error {
            SourceError::Gone => StatusCode::GONE,
            SourceError::Lost(_) => StatusCode::INTERNAL_SERVER_ERROR,
            SourceError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(status, format!("{error}\n"))
    })
}

/// What a query asks for. Neither a name nor a number has a character that would have to be encoded.
fn piece(digest: &str, query: &str) -> Option<(RepoName, Digest, u64)> {
    let (name, from) = query.strip_prefix("repository=")?.split_once("&from=")?;
    Some((name.parse().ok()?, digest.parse().ok()?, from.parse().ok()?))
}

fn of_type(bytes: impl Into<Bytes>, kind: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::OK, bytes);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
