//! An answer with what the log says of it, and the one place that finishes one.

use hyper::Response;
use hyper::http::response::Builder;

use super::body::Body;
use super::error::ApiError;
use crate::cache::Outcome;
use crate::oci::{Digest, ErrorCode};

/// What an endpoint gives back.
pub struct Answer {
    /// What is sent.
    pub response: Response<Body>,
    /// How it came about, if the cache had a part in it.
    pub outcome: Option<Outcome>,
    /// The digest that is served.
    pub subject: Option<Digest>,
    /// Whether a fallback said that the tag means it.
    pub is_fallback: bool,
}

impl Answer {
    /// An answer that the cache had no part in.
    pub fn plain(response: Response<Body>) -> Answer {
        Answer { response, outcome: None, subject: None, is_fallback: false }
    }

    /// An answer about content of our own.
    pub fn ours(response: Response<Body>, subject: Digest) -> Answer {
        Answer { subject: Some(subject), ..Answer::plain(response) }
    }
}

/// Puts headers and body together. Header values are made from checked types, so it does not fail; should it, the
/// client gets an error and no half answer.
pub fn finish(builder: Builder, body: Body) -> Result<Response<Body>, ApiError> {
    builder.body(body).map_err(|error| ApiError::new(ErrorCode::Unknown, error.to_string()))
}
