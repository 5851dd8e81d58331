//! The body of a request: streamed to where it goes, read whole where it is small, and not left lying in the connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::body::Body;
use hyper::header::{self, HeaderMap};
use tokio::time::timeout;

use crate::http::error::ApiError;
use crate::oci::ErrorCode;

/// Bytes of a refused request that are read after all, so that the connection can go on.
const DRAINED: usize = 256 << 10;
/// How long they are waited for: what was sent is here by then, and who sends nothing waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request's body, as a stream of its bytes.
pub struct Payload<B> {
    stream: BodyDataStream<B>,
    // Bytes that have been announced.
    announced: u64,
    ended: bool,
}

impl<B> Payload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// The body of a request.
    pub fn new(body: B) -> Payload<B> {
        let (announced, ended) = (body.size_hint().lower(), body.is_end_stream());
        Payload { stream: body.into_data_stream(), announced, ended }
    }

    /// Its bytes, as they come.
    pub fn stream(&mut self) -> impl futures_util::Stream<Item = Result<Bytes, B::Error>> + Unpin {
        futures_util::stream::poll_fn(|context| {
            let polled = self.stream.poll_next_unpin(context);
            self.ended |= matches!(polled, std::task::Poll::Ready(None | Some(Err(_))));
            polled
        })
    }

    /// All of it, if it is no longer than `most`.
    pub async fn whole(&mut self, most: usize) -> Result<Bytes, ApiError> {
        let mut whole = BytesMut::new();
        let mut stream = self.stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| ApiError::bad_request(&error.to_string()))?;
            if whole.len() + piece.len() > most {
                let message = format!("the body is larger than the {most} bytes that are taken here");
                let too_large = ApiError::new(ErrorCode::SizeInvalid, message);
                return Err(too_large.status(hyper::StatusCode::PAYLOAD_TOO_LARGE));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Reads what is left of a refused request, if that is little and soon there; else hyper closes the connection. A client that waits
    /// to be told to go on sends nothing, and must not be.
    pub async fn drain(&mut self, headers: &HeaderMap) {
        if self.ended || self.announced > DRAINED as u64 || headers.contains_key(header::EXPECT) {
            return;
        }
        let mut stream = self.stream();
        let reading = async {
            let mut read = 0;
            while let Some(Ok(piece)) = stream.next().await {
                read += piece.len();
                if read > DRAINED {
                    return;
                }
            }
        };
        // Too late or not, the answer is sent now.
        let _ = timeout(PATIENCE, reading).await;
    }
}
