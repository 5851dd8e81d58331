//! Content digests: `sha256:…` and `sha512:…`, and the hashing that makes them.
//!
//! A [`Digest`] holds the hash itself, not the text it was read from, so it cannot be malformed and its text is safe as
//! a file name. Upper-case hex is refused, never normalised (OCI image-spec, descriptor.md, "Registered algorithms").

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use thiserror::Error;

/// The hash algorithms that content can be addressed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits.
    Sha256,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// The registered name, as it stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the hash in bytes.
    pub fn hash_length(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// Why a text is not a digest that we can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DigestError {
    /// It does not follow the grammar, or its encoded part has the wrong length or case.
    #[error("not a digest: write it as sha256:<64 lower-case hex digits> or sha512:<128>")]
    Malformed,
    /// It follows the grammar, but names an algorithm that is not verified here.
    #[error("unsupported digest algorithm: sha256 and sha512 are known here")]
    Unsupported,
}

/// The hash of some content, with the algorithm that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    // Unused bytes of a shorter hash are zero, so that the derived comparisons are right.
    bytes: [u8; 64],
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Digest {
    /// The digest of `content` in one call.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The SHA-256 digest of `content`.
    pub fn sha256(content: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, content)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.hash_length()]
    }

    /// The part after the colon: lower-case hex.
    pub fn hex(&self) -> String {
        let mut buffer = [0; 128];
        self.write_hex(&mut buffer).to_owned()
    }

    /// Whether `content` hashes to this digest.
    pub fn matches(&self, content: &[u8]) -> bool {
        Digest::of(self.algorithm, content) == *self
    }

    /// A digest from the hash itself; `None` if its length is not the algorithm's.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Option<Digest> {
        let mut bytes = [0; 64];
        bytes.get_mut(..algorithm.hash_length())?.copy_from_slice(hash.get(..algorithm.hash_length())?);
        (hash.len() == algorithm.hash_length()).then_some(Digest { algorithm, bytes })
    }
}

impl Digest {
    /// Writes it at the end of `text`: as formatting does, for a fraction of what that costs.
    pub fn push_to(&self, text: &mut String) {
        text.push_str(self.algorithm.as_str());
        text.push(':');
        text.push_str(self.write_hex(&mut [0; 128]));
    }

    // Once per request at least: without a detour over the heap.
    fn write_hex<'b>(&self, buffer: &'b mut [u8; 128]) -> &'b str {
        let bytes = self.bytes();
        for (pair, byte) in buffer.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        // Hex digits are text.
        std::str::from_utf8(&buffer[..bytes.len() * 2]).unwrap_or_default()
    }
}

// Without the unused bytes: half of what there is.
impl Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.bytes());
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.as_str())?;
        f.write_str(":")?;
        f.write_str(self.write_hex(&mut [0; 128]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (name, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|known| known.as_str() == name) else {
            return Err(if is_algorithm(name) && is_encoded(encoded) {
                DigestError::Unsupported
            } else {
                DigestError::Malformed
            });
        };
        if encoded.len() != algorithm.hash_length() * 2 {
            return Err(DigestError::Malformed);
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(encoded.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Digest { algorithm, bytes })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes content piece by piece.
#[derive(Clone)]
pub enum Hasher {
    /// For a `sha256:` digest.
    Sha256(sha2::Sha256),
    /// For a `sha512:` digest.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match self {
            Hasher::Sha256(inner) => inner.update(piece),
            Hasher::Sha512(inner) => inner.update(piece),
        }
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        let (mut bytes, algorithm) = ([0; 64], self.algorithm());
        match self {
            Hasher::Sha256(inner) => bytes[..32].copy_from_slice(&inner.finalize()),
            Hasher::Sha512(inner) => bytes.copy_from_slice(&inner.finalize()),
        }
        Digest { algorithm, bytes }
    }
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::Malformed),
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`
fn is_algorithm(name: &str) -> bool {
    name.split(['+', '.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// `[a-zA-Z0-9=_-]+`
fn is_encoded(encoded: &str) -> bool {
    !encoded.is_empty() && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_empty_content_has_its_well_known_digest() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert!(Digest::of(Algorithm::Sha512, b"").to_string().starts_with("sha512:cf83e1357eefb8bd"));
    }

    #[test]
    fn what_is_not_a_digest_is_refused_with_its_reason() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let short = &EMPTY[..EMPTY.len() - 1];
        let long = format!("{EMPTY}0");
        for text in
            ["", "sha256", "sha256:", ":", "sha256:xyz", "../..:a", "sha256:../../etc/passwd", &upper, short, &long]
        {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Malformed), "{text}");
        }
        for text in ["blake3:abc", "sha1:da39", "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Unsupported), "{text}");
        }
    }

    #[test]
    fn algorithms_never_stand_in_for_each_other() {
        assert_ne!(Digest::of(Algorithm::Sha256, b"a"), Digest::of(Algorithm::Sha512, b"a"));
    }

    proptest! {
        #[test]
        fn text_and_value_are_one_to_one(content: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &content);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            prop_assert!(digest.matches(&content));
        }

        #[test]
        fn hashing_in_pieces_is_hashing_at_once(content: Vec<u8>, cut in 0usize..64) {
            let cut = cut.min(content.len());
            let mut hasher = Hasher::new(Algorithm::Sha256);
            hasher.update(&content[..cut]);
            hasher.update(&content[cut..]);
            prop_assert_eq!(hasher.finish(), Digest::sha256(&content));
        }

        #[test]
        fn whatever_parses_is_one_path_component(text in "\\PC*") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert!(!digest.hex().contains(['/', '.', '\0']));
            }
        }
    }
}
