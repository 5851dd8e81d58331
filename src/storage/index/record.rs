//! What the index's rows hold, and the bytes they are kept as. Knows nothing of keys.
//!
//! A record begins with its version. A version that this build does not know is damage to it: the index is then built
//! anew from the files, which is also how a new format is introduced.

use crate::oci::{Digest, MediaType};
use crate::storage::link::Link;

use super::key::{parse_digest, push_digest};

/// Which records and keys there are; anything else is rebuilt.
pub(super) const SCHEMA: &[u8] = b"larder index 1";

/// sled never frees the file of a value that is larger than this (reliability.md 1.5, R3).
pub(super) const VALUE_CAP: usize = 16 << 10;
/// The longest record: a tag's, with a SHA-512 digest.
const LONGEST: usize = 1 + 8 + 1 + 64;
const _: () = assert!(LONGEST <= VALUE_CAP && SCHEMA.len() <= VALUE_CAP);

const VERSION: u8 = 1;

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its length in bytes.
    pub size: u64,
    /// When it was last asked for, in Unix seconds, to the minute; or when it was stored.
    pub last_used: u64,
}

impl BlobRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(&[&self.size.to_le_bytes(), &self.last_used.to_le_bytes()])
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<BlobRecord> {
        let (size, rest) = split_u64(current(bytes)?)?;
        let (last_used, rest) = split_u64(rest)?;
        rest.is_empty().then_some(BlobRecord { size, last_used })
    }
}

/// What is known of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagRecord {
    pub(super) digest: Digest,
    /// When upstream last said so, in Unix seconds.
    pub(super) checked: u64,
}

impl TagRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = encode(&[&self.checked.to_le_bytes()]);
        push_digest(&mut record, &self.digest);
        record
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<TagRecord> {
        let (checked, rest) = split_u64(current(bytes)?)?;
        Some(TagRecord { digest: parse_digest(rest)?, checked })
    }
}

pub(super) fn encode_link(link: &Link) -> Vec<u8> {
    let kind = match link {
        Link::Blob { .. } => 0,
        Link::Manifest { media_type, .. } => media_type_code(*media_type),
    };
    encode(&[&[kind], &link.size().to_le_bytes()])
}

pub(super) fn parse_link(bytes: &[u8]) -> Option<Link> {
    let (&kind, rest) = current(bytes)?.split_first()?;
    let (size, rest) = split_u64(rest)?;
    let link = match MediaType::ALL.into_iter().find(|known| media_type_code(*known) == kind) {
        Some(media_type) => Link::Manifest { media_type, size },
        None if kind == 0 => Link::Blob { size },
        None => return None,
    };
    rest.is_empty().then_some(link)
}

/// A holder's row says all it has to say by being there.
pub(super) fn encode_holder() -> Vec<u8> {
    encode(&[])
}

pub(super) fn parse_holder(bytes: &[u8]) -> Option<()> {
    current(bytes)?.is_empty().then_some(())
}

fn media_type_code(media_type: MediaType) -> u8 {
    match media_type {
        MediaType::OciIndex => 1,
        MediaType::OciManifest => 2,
        MediaType::DockerList => 3,
        MediaType::DockerManifest => 4,
    }
}

fn encode(parts: &[&[u8]]) -> Vec<u8> {
    let mut record = vec![VERSION];
    parts.iter().for_each(|part| record.extend_from_slice(part));
    record
}

fn current(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&[VERSION])
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn every_media_type_comes_back() {
        for media_type in MediaType::ALL {
            let link = Link::Manifest { media_type, size: u64::MAX };
            assert_eq!(parse_link(&encode_link(&link)), Some(link));
        }
        let link = Link::Blob { size: 0 };
        assert_eq!(parse_link(&encode_link(&link)), Some(link));
    }

    proptest! {
        #[test]
        fn records_come_back_and_cut_ones_do_not(size: u64, time: u64, long: bool, cut: prop::sample::Index) {
            let digest = Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, &size.to_le_bytes());
            let (blob, tag) = (BlobRecord { size, last_used: time }, TagRecord { digest, checked: time });
            let (blob_bytes, tag_bytes) = (blob.encode(), tag.encode());
            prop_assert!(tag_bytes.len() <= LONGEST);
            prop_assert_eq!(BlobRecord::parse(&blob_bytes), Some(blob));
            prop_assert_eq!(TagRecord::parse(&tag_bytes), Some(tag));
            prop_assert_eq!(BlobRecord::parse(&blob_bytes[..cut.index(blob_bytes.len())]), None);
            prop_assert_eq!(TagRecord::parse(&tag_bytes[..cut.index(tag_bytes.len())]), None);
        }
    }
}
