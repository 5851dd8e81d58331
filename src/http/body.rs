//! What answers are made of: nothing, a few bytes, or a blob that is read as the client takes it.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;

use crate::cache::{BlobReader, BrokenStream};

/// An answer's body. Its error cuts the connection: nobody may take what was sent for the whole.
pub type Body = UnsyncBoxBody<Bytes, BrokenStream>;

/// No bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// These bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// What `reader` reads.
pub fn blob(reader: BlobReader) -> Body {
    let frames = stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|bytes| (Frame::data(bytes), reader)))
    });
    StreamBody::new(frames).boxed_unsync()
}
