//! What an error, and what `/v2/`, looks like on the wire.

use hyper::header::{self, HeaderValue};
use hyper::{Method, Response};

use super::answer::{Answer, finish};
use super::body;
use super::error::ApiError;

fn range_of_none(size: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{size}")).unwrap_or(HeaderValue::from_static("bytes */*"))
}

/// An error as an answer.
pub fn render(error: &ApiError, method: &Method) -> Response<body::Body> {
    let text = error.body();
    let length = text.len();
    let mut response = Response::new(if method == Method::HEAD { body::empty() } else { body::full(text) });
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(size) = error.unsatisfiable {
        headers.insert(header::CONTENT_RANGE, range_of_none(size));
    }
    if let Some(after) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    for (name, value) in &error.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// What is answered to `/v2/`, at once and whatever the upstream's state: Docker waits up to 15 s for it on every pull.
pub fn base(method: &Method) -> Result<Answer, ApiError> {
    let builder =
        Response::builder().header(header::CONTENT_TYPE, "application/json").header(header::CONTENT_LENGTH, 2);
    let body = if method == Method::HEAD { body::empty() } else { body::full("{}") };
    finish(builder, body).map(Answer::plain)
}
