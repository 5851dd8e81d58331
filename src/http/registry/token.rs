//! `/token`: what a client gets for its password, or for nothing where anybody may pull (the Docker token specification,
//! and its OAuth2 form).

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};

use super::admission::refused;
use super::payload::Payload;
use crate::access::{Access, AccessError, MAX_REQUEST, TokenRequest};
use crate::http::answer::{Answer, finish};
use crate::http::body;
use crate::http::error::ApiError;
use crate::http::record::Record;
use crate::server::Peer;

/// Its path.
pub const PATH: &str = "/token";

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Gives a token for what of the request is allowed.
pub async fn give<B>(
    access: &Access,
    parts: &Parts,
    payload: &mut Payload<B>,
    peer: &Peer,
    record: &mut Record,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let request = match parts.method {
        Method::GET => {
            let authorization = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            TokenRequest::from_query(parts.uri.query(), authorization)
        }
        Method::POST => TokenRequest::from_form(&payload.whole(MAX_REQUEST).await?),
        _ => return Err(ApiError::method_not_allowed("GET, POST")),
    };
    let request = request.map_err(|error| denied(&error))?;
    let grant = access.token(request, peer.address.ip()).await.map_err(|error| denied(&error))?;
    record.account(grant.account.as_deref());
    let text = grant.to_json();
    let builder = Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::CACHE_CONTROL, NO_STORE)
        .header(header::CONTENT_LENGTH, text.len());
    finish(builder, body::full(text)).map(Answer::plain)
}

/// A token is asked for with a password, whatever the registry itself is asked with.
fn denied(error: &AccessError) -> ApiError {
    let refused = refused(error);
    match error {
        AccessError::WrongPassword | AccessError::InvalidToken => {
            refused.with(header::WWW_AUTHENTICATE, format!("Basic realm=\"{}\"", crate::access::SERVICE))
        }
        _ => refused,
    }
}
