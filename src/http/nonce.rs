//! The names that are reserved for the probes of `larder doctor`. Knows nothing of who asks for them.

use crate::oci::RepoName;

/// What tells one probe from another: 128 random bits, in 32 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(u128);

impl Nonce {
    /// As it is written: 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Nonce> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(is_digit)).then(|| u128::from_str_radix(text, 16).ok().map(Nonce))?
    }

    /// Of a name that is reserved for probes.
    pub fn of(name: &RepoName) -> Option<Nonce> {
        let name = name.as_str();
        Nonce::parse(name.strip_prefix("library/").unwrap_or(name).strip_prefix("larder-probe-")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_written_in_one_way_and_only_reserved_names_have_one() {
        let nonce = "0123456789abcdef0123456789abcdef";
        assert!(Nonce::parse(nonce).is_some());
        for text in ["", "0123456789ABCDEF0123456789abcdef", "+123456789abcdef0123456789abcdef", &nonce[1..]] {
            assert_eq!(Nonce::parse(text), None, "{text}");
        }
        let of = |name: String| Nonce::of(&name.parse().unwrap());
        assert_eq!(of(format!("library/larder-probe-{nonce}")), Nonce::parse(nonce));
        assert_eq!(of(format!("larder-probe-{nonce}")), Nonce::parse(nonce));
        for name in [format!("org/larder-probe-{nonce}"), format!("library/larder-probe-{nonce}0"), "library/a".into()]
        {
            assert_eq!(of(name.clone()), None, "{name}");
        }
    }
}
