//! The CDN: signed addresses, bytes, ranges. It answers 400 when it sees an `Authorization`, as S3 does.

use hyper::header;
use larder::oci::Digest;

use super::endpoint::cdn_path;
use super::reply::Reply;
use super::seen::Seen;
use super::serve::{Shared, random};

/// A new address for a blob.
pub fn sign(shared: &Shared, digest: &Digest) -> String {
    let signature = random();
    let url = format!("{}{}?Expires=1&Signature={signature}&Key-Pair-Id=K", shared.names.cdn, cdn_path(&digest.hex()));
    shared.signatures.lock().unwrap().insert(signature);
    url
}

/// The CDN's answer.
pub fn answer(shared: &Shared, seen: &Seen, digest: &str) -> Reply {
    if seen.headers.contains_key(header::AUTHORIZATION) {
        return xml(400, "InvalidArgument");
    }
    let signature = seen.query("Signature").unwrap_or_default();
    if !shared.signatures.lock().unwrap().contains(&signature) {
        return xml(403, "AccessDenied");
    }
    let digest: Digest = digest.parse().unwrap();
    match shared.content.lock().unwrap().blobs.get(&digest) {
        None => xml(404, "NoSuchKey"),
        Some(bytes) => {
            // An object store has an ETag of its own, which is not the digest.
            let etag = format!("\"{}\"", &Digest::sha256(digest.bytes()).hex()[..32]);
            let reply = Reply::new(200, "application/octet-stream", bytes.clone()).with(header::ETAG, &etag);
            ranged(reply.with(header::ACCEPT_RANGES, "bytes"), seen, &etag)
        }
    }
}

/// Heeds `Range` and `If-Range`.
pub fn ranged(mut reply: Reply, seen: &Seen, etag: &str) -> Reply {
    let size = reply.content.len();
    let Some(range) = seen.header(header::RANGE).and_then(|range| parse(range, size)) else { return reply };
    if seen.header(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return reply;
    }
    match range {
        Some((start, end)) => {
            reply.set_range(start, end);
            reply
        }
        None => xml(416, "InvalidRange").with(header::CONTENT_RANGE, &format!("bytes */{size}")),
    }
}

/// `None`: not one range of bytes. `Some(None)`: none of `size` bytes. Written anew, and not with Larder's own parser:
/// the two must not be wrong together.
fn parse(range: &str, size: usize) -> Option<Option<(usize, usize)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, size.min(last + 1)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(last)) if first.is_empty() => (size.saturating_sub(last), size),
        _ => return None,
    };
    Some((start < end).then_some((start, end)))
}

fn xml(status: u16, code: &str) -> Reply {
    Reply::new(status, "application/xml", format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"))
}
