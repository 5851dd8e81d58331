//! What answers are made of: nothing, a few bytes, or a blob that is read, or sent from its file, as the client takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, SizeHint};

use crate::cache::{BlobReader, BrokenStream};
use crate::hosted::Hosted;
use crate::oci::{ByteRange, Digest};
use crate::server::{FileSink, Region};
use crate::storage::{BlobFile, Extent};

/// Bytes read at a time where they are not sent from the file.
const CHUNK: usize = 256 << 10;

/// An answer's body. Its error cuts the connection: nobody may take what was sent for the whole.
pub struct Body {
    content: Content,
}

enum Content {
    /// No bytes, or none any more.
    Nothing,
    Bytes(Bytes),
    Blob(UnsyncBoxBody<Bytes, BrokenStream>),
}

/// No bytes.
pub fn empty() -> Body {
    Body { content: Content::Nothing }
}

/// These bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    Body { content: if bytes.is_empty() { Content::Nothing } else { Content::Bytes(bytes) } }
}

/// What `reader` reads. With `files` its bytes are sent from where they lie; the answer must announce its length then.
pub fn blob(reader: BlobReader, files: Option<FileSink>) -> Body {
    let frames = stream::try_unfold((reader, files), |(mut reader, files)| async move {
        let bytes = match &files {
            None => reader.next().await?,
            Some(files) => match reader.next_extent(FileSink::LONGEST).await? {
                None => None,
                Some(Extent { file, offset, length, .. }) => Some(files.enqueue(Region { file, offset, length })?),
            },
        };
        Ok(bytes.map(|bytes| (Frame::data(bytes), (reader, files))))
    });
    Body { content: Content::Blob(StreamBody::new(frames).boxed_unsync()) }
}

/// A blob of ours that lies here complete.
pub struct Lying {
    /// Whose it is.
    pub hosted: Hosted,
    /// Which.
    pub digest: Digest,
    /// Its file.
    pub file: BlobFile,
}

/// A part of a file. With `files` its bytes are sent from where they lie; the answer must announce its length then.
pub fn file(blob: Lying, range: ByteRange, files: Option<FileSink>) -> Body {
    let frames = stream::try_unfold((blob, range, files), |(blob, mut range, files)| async move {
        if range.start >= range.end {
            return Ok(None);
        }
        let longest = if files.is_some() { FileSink::LONGEST } else { CHUNK };
        let length = usize::try_from(range.length()).map_or(longest, |length| length.min(longest));
        let extent = blob.file.extent(range.start, length);
        range.start += length as u64;
        // What is in memory is sent or copied at once; a cold page would hold up everybody on this thread.
        blob.hosted.check(&blob.digest, &extent).await.map_err(io::Error::other)?;
        let bytes = match &files {
            Some(files) => {
                let Extent { file, offset, length, .. } = extent;
                files.enqueue(Region { file, offset, length })?
            }
            None => extent.read()?,
        };
        Ok::<_, BrokenStream>(Some((Frame::data(bytes), (blob, range, files))))
    });
    Body { content: Content::Blob(StreamBody::new(frames).boxed_unsync()) }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BrokenStream;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenStream>>> {
        match &mut self.content {
            Content::Nothing => Poll::Ready(None),
            Content::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Nothing;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Blob(frames) => Pin::new(frames).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Blob(_) => SizeHint::default(),
        }
    }
}
