//! A blob on its way from an upstream. Never hashes: what arrives is as trustworthy as who sent it.

use bytes::Bytes;
use hyper::StatusCode;

use super::error::UpstreamError;
use super::headers;
use super::line::Answer;
use super::question::Span;

/// The bytes of a blob, or of a part of it.
pub struct BlobBody {
    /// Where in the blob the first byte belongs. An upstream that does not do ranges starts at 0 and sends everything
    /// although asked for a part.
    pub start: u64,
    /// Whether it is a part, and not everything.
    pub is_part: bool,
    /// Length of the whole blob, if the upstream says.
    pub total: Option<u64>,
    left: Option<u64>,
    answer: Answer,
}

impl BlobBody {
    /// The body of an answer to a question for `span`.
    pub(super) fn new(answer: Answer, span: Span) -> Result<BlobBody, UpstreamError> {
        let length = headers::content_length(&answer.headers);
        if answer.status != StatusCode::PARTIAL_CONTENT {
            return Ok(BlobBody { start: 0, is_part: false, total: length, left: length, answer });
        }
        let Some(range) = headers::content_range(&answer.headers) else {
            return Err(answer.fault(answer.invalid("it is a part without a Content-Range that can be read")));
        };
        let is_end = span.end == Some(range.end) || range.total.is_none_or(|total| total == range.end);
        let is_start = range.start == span.start && span.end.is_none_or(|end| range.end <= end);
        let is_length = length.is_none_or(|length| length == range.end - range.start);
        if !is_start || !is_end || !is_length {
            return Err(answer.fault(answer.invalid("it is another part than the one that was asked for")));
        }
        let left = Some(range.end - range.start);
        Ok(BlobBody { start: range.start, is_part: true, total: range.total, left, answer })
    }

    /// Whether more of a blob of `size` bytes follows behind this body.
    pub fn ends_before(&self, size: Option<u64>) -> bool {
        self.left.zip(size).is_some_and(|(left, size)| self.start + left < size)
    }

    /// The next bytes; `None` when the declared length has arrived. Only a body that declares none may end anywhere.
    ///
    /// # Errors
    /// See [`UpstreamError`]; it is not worth calling again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let (piece, part) = (self.answer.next().await?, self.answer.part);
        let Some(left) = self.left else { return Ok(piece) };
        let arrived = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let Some(still) = left.checked_sub(arrived) else {
            return Err(self.answer.fault(self.answer.invalid("it is longer than it said")));
        };
        self.left = Some(still);
        if piece.is_none() && still > 0 {
            let reason = format!("{still} bytes are missing");
            return Err(self.answer.fault(UpstreamError::Cut { part, reason }));
        }
        Ok(piece)
    }
}
