//! The keys of the index's rows, and so their order. Knows nothing of what the rows hold.
//!
//! One key space; the first byte is the kind of the row. A NUL ends every name: it is in none of them and below every
//! byte that is, so keys are in the order of the types ([`Repository`], [`Digest`], [`Tag`]), and all rows of one
//! repository lie together.

use crate::oci::{Algorithm, Digest, Repository, Tag};
use crate::storage::home::Home;

/// The row that says which format the rows have.
pub(super) const SCHEMA: &[u8] = b"\0schema";
/// The row that says which session wrote last; see `epoch.rs`.
pub(super) const EPOCH: &[u8] = b"\0epoch";

/// No row about files comes before this key, and it is no row's itself.
pub(super) const FIRST: [u8; 1] = [1];
/// Every row comes before this key.
pub(super) const LAST: [u8; 1] = [u8::MAX];

/// What a row is about. The values are the keys' first bytes; rows of the index itself begin with NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// digest: size and last use
    Blob = b'b',
    /// digest, repository: who holds it; every link has one
    Holder = b'h',
    /// repository, digest: as what it is held
    Link = b'l',
    /// repository, tag: what it points at
    Tag = b't',
}

impl Kind {
    /// Every kind there is.
    pub(super) const ALL: [Kind; 4] = [Kind::Blob, Kind::Holder, Kind::Link, Kind::Tag];
}

/// A key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Blob(Digest),
    Holder(Digest, Home),
    Link(Home, Digest),
    Tag(Home, Tag),
}

impl Key {
    /// Takes a key apart; none that this module made is refused.
    pub(super) fn parse(key: &[u8]) -> Option<Key> {
        let (&kind, rest) = key.split_first()?;
        match Kind::ALL.into_iter().find(|known| *known as u8 == kind)? {
            Kind::Blob => Some(Key::Blob(parse_digest(rest)?)),
            Kind::Holder => {
                let (digest, rest) = rest.split_at_checked(1 + algorithm(*rest.first()?)?.hash_length())?;
                let (repository, rest) = parse_repository(rest)?;
                rest.is_empty().then_some(Key::Holder(parse_digest(digest)?, repository))
            }
            Kind::Link => {
                let (repository, rest) = parse_repository(rest)?;
                Some(Key::Link(repository, parse_digest(rest)?))
            }
            Kind::Tag => {
                let (repository, rest) = parse_repository(rest)?;
                Some(Key::Tag(repository, std::str::from_utf8(rest).ok()?.parse().ok()?))
            }
        }
    }
}

/// The key of a blob's row.
pub(super) fn blob(digest: &Digest) -> Vec<u8> {
    let mut key = vec![Kind::Blob as u8];
    push_digest(&mut key, digest);
    key
}

/// What the keys of all rows of this kind begin with.
pub(super) fn all(kind: Kind) -> Vec<u8> {
    vec![kind as u8]
}

/// What the keys of a digest's holders begin with.
pub(super) fn holders(digest: &Digest) -> Vec<u8> {
    let mut key = vec![Kind::Holder as u8];
    push_digest(&mut key, digest);
    key
}

/// What the keys of a digest's hosted holders begin with.
pub(super) fn hosts(digest: &Digest) -> Vec<u8> {
    let mut key = holders(digest);
    key.push(0);
    key
}

/// The key of the row that says that `repository` holds `digest`.
pub(super) fn holder(digest: &Digest, repository: &Home) -> Vec<u8> {
    let mut key = holders(digest);
    push_repository(&mut key, repository);
    key
}

/// What the keys of a repository's rows of this kind begin with.
pub(super) fn within(kind: Kind, repository: &Home) -> Vec<u8> {
    let mut key = vec![kind as u8];
    push_repository(&mut key, repository);
    key
}

/// The key of a link's row.
pub(super) fn link(repository: &Home, digest: &Digest) -> Vec<u8> {
    let mut key = within(Kind::Link, repository);
    push_digest(&mut key, digest);
    key
}

/// The key of a tag's row.
pub(super) fn tag(repository: &Home, tag: &Tag) -> Vec<u8> {
    let mut key = within(Kind::Tag, repository);
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

/// The first key after all that begin with `prefix`, which begins with a kind.
pub(super) fn past(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

/// A hosted repository has no registry, so it comes before all that have one.
fn push_repository(key: &mut Vec<u8>, repository: &Home) {
    let parts = match repository {
        Home::Hosted(name) => ["", name.as_str()],
        Home::Cached(repository) => [repository.registry.as_str(), repository.name.as_str()],
    };
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
}

/// What comes after all hosted repositories' keys and before all cached ones', among those that begin with `prefix`.
pub(super) fn between_homes(mut prefix: Vec<u8>) -> Vec<u8> {
    prefix.push(1);
    prefix
}

fn parse_repository(key: &[u8]) -> Option<(Home, &[u8])> {
    let mut parts = key.splitn(3, |&byte| byte == 0);
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (registry, name) = (text()?, text()?.parse().ok()?);
    let home = match registry {
        "" => Home::Hosted(name),
        registry => Home::Cached(Repository { registry: registry.parse().ok()?, name }),
    };
    Some((home, parts.next()?))
}

/// A digest as bytes, in the order that digests have.
pub(super) fn push_digest(bytes: &mut Vec<u8>, digest: &Digest) {
    bytes.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    bytes.extend_from_slice(digest.bytes());
}

/// The digest that [`push_digest`] wrote, if it is all there and nothing else.
pub(super) fn parse_digest(bytes: &[u8]) -> Option<Digest> {
    let (&tag, hash) = bytes.split_first()?;
    Digest::from_hash(algorithm(tag)?, hash)
}

fn algorithm(tag: u8) -> Option<Algorithm> {
    match tag {
        1 => Some(Algorithm::Sha256),
        2 => Some(Algorithm::Sha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repository() -> impl Strategy<Value = Home> {
        let (registry, name) = ("([a-c]{1,2}(\\.[a-c]{1,2})?(:[1-9])?)?", "[a-c]{1,2}([._/-][a-c]{1,2}){0,2}");
        (registry, name).prop_map(|(registry, name)| match registry.as_str() {
            "" => Home::Hosted(name.parse().unwrap()),
            registry => Repository { registry: registry.parse().unwrap(), name: name.parse().unwrap() }.into(),
        })
    }

    fn digest() -> impl Strategy<Value = Digest> {
        (any::<bool>(), any::<u16>()).prop_map(|(long, seed)| {
            Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, &seed.to_be_bytes())
        })
    }

    fn any_key() -> impl Strategy<Value = Key> {
        prop_oneof![
            digest().prop_map(Key::Blob),
            (digest(), repository()).prop_map(|(digest, repository)| Key::Holder(digest, repository)),
            (repository(), digest()).prop_map(|(repository, digest)| Key::Link(repository, digest)),
            (repository(), "[A-Za-c_][a-c._-]{0,3}").prop_map(|(name, tag)| Key::Tag(name, tag.parse().unwrap())),
        ]
    }

    fn bytes(key: &Key) -> Vec<u8> {
        match key {
            Key::Blob(digest) => blob(digest),
            Key::Holder(digest, repository) => holder(digest, repository),
            Key::Link(repository, digest) => link(repository, digest),
            Key::Tag(repository, name) => tag(repository, name),
        }
    }

    #[test]
    fn what_follows_a_prefix_of_ones_is_found_further_left() {
        assert_eq!(past(vec![b'h', 1, 0xff, 0xff]), [b'h', 2]);
        assert_eq!(past(vec![b'h', 0xff]), [b'i']);
    }

    proptest! {
        #[test]
        fn keys_and_bytes_are_one_to_one_and_in_the_same_order(one in any_key(), other in any_key()) {
            prop_assert_eq!(Key::parse(&bytes(&one)), Some(one.clone()));
            prop_assert_eq!(bytes(&one).cmp(&bytes(&other)), one.cmp(&other));
        }

        #[test]
        fn a_repositorys_rows_lie_together(one in repository(), other in repository(), digest in digest()) {
            let (prefix, key) = (within(Kind::Link, &one), link(&other, &digest));
            prop_assert_eq!(key >= prefix && key < past(prefix), one == other);
        }

        #[test]
        fn damaged_keys_are_refused_not_misread(key in any_key(), at: prop::sample::Index, bit in 0u8..8) {
            let mut damaged = bytes(&key);
            *at.get_mut(&mut damaged) ^= 1 << bit;
            if let Some(read) = Key::parse(&damaged) {
                prop_assert_eq!(bytes(&read), damaged);
            }
        }
    }
}
