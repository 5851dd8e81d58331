//! What `larder backup` asks a running server for: repositories, what each has, what is pinned, and content piece by piece.
//!
//! Whoever gets this gets every private image. So it is asked for by POST, and takes the permission that changing something
//! takes, although it changes nothing.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::told::{Body, json, text};
use crate::backup::{Listing, Local, Source, SourceError};
use crate::oci::{Digest, RepoName};
use crate::storage::Home;

/// Where all of it is.
pub(super) const PREFIX: &str = "/api/backup/";

/// Answers who asks for something below [`PREFIX`] and may have it.
pub(super) async fn give(local: &Local, below: &str, query: Option<&str>) -> Response<Body> {
    let done = match below.split_once('/') {
        None if below == "repositories" => local.repositories().await.map(|names| json(&names)),
        None if below == "pins" => local.pins().await.map(|pins| json(&pins)),
        None if below == "pinned" => local.pinned().await.map(listed),
        Some(("repositories", name)) => match name.parse::<RepoName>() {
            Ok(name) => local.listing(&name).await.map(listed),
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        Some(("content", digest)) => match piece(digest, query.unwrap_or_default()) {
            Some((home, digest, from)) => {
                local.piece(&home, &digest, from).await.map(|bytes| of_type(bytes, "application/octet-stream"))
            }
            None => return text(StatusCode::BAD_REQUEST, "content/DIGEST?repository=NAME&from=BYTE, or cached=\n"),
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

/// What [`piece_of`] asks for.
fn piece(digest: &str, query: &str) -> Option<(Home, Digest, u64)> {
    let (home, from) = query.split_once("&from=")?;
    let home = match home.split_once('=')? {
        ("repository", name) => Home::Hosted(name.parse().ok()?),
        ("cached", name) => Home::Cached(name.parse().ok()?),
        _ => return None,
    };
    Some((home, digest.parse().ok()?, from.parse().ok()?))
}

/// How content is asked for. Neither a name nor a number has a character that would have to be encoded.
pub(super) fn piece_of(home: &Home, digest: &Digest, from: u64) -> String {
    match home {
        Home::Hosted(name) => format!("content/{digest}?repository={name}&from={from}"),
        Home::Cached(repository) => format!("content/{digest}?cached={repository}&from={from}"),
    }
}

fn listed(listing: Listing) -> Response<Body> {
    of_type(listing.to_index().to_json(), "application/json")
}

fn of_type(bytes: impl Into<Bytes>, kind: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::OK, bytes);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
