//! What answers are made of: nothing, a few bytes, or a blob that is read, or sent from its file, as the client takes it.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;

use crate::cache::{BlobReader, BrokenStream};
use crate::server::{FileSink, Region};
use crate::storage::Extent;

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

/// What `reader` reads. With `files` its bytes are sent from where they lie; the answer must announce its length then.
pub fn blob(reader: BlobReader, files: Option<FileSink>) -> Body {
    let frames = stream::try_unfold((reader, files), |(mut reader, files)| async move {
        let bytes = match &files {
            None => reader.next().await?,
            Some(files) => match reader.next_extent(FileSink::LONGEST).await? {
                None => None,
                Some(Extent { file, offset, length }) => Some(files.enqueue(Region { file, offset, length })?),
            },
        };
        Ok(bytes.map(|bytes| (Frame::data(bytes), (reader, files))))
    });
    StreamBody::new(frames).boxed_unsync()
}
