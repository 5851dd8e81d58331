//! Byte ranges of a blob: what a `Range` header asks for, and what it comes to once the size is known (RFC 9110, 14).

use std::str::FromStr;

/// A part of a blob: not empty, and inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes; at least 1.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// The value of `Content-Range`; always with the total, which snapshotters need (protocol section 4).
    pub fn content_range(&self, total: u64) -> String {
        format!("bytes {}-{}/{total}", self.start, self.end - 1)
    }
}

/// A `Range` header with one range. Anything else counts as no range at all, which RFC 9110 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeHeader {
    /// `bytes=a-` or `bytes=a-b`, both inclusive.
    From(u64, Option<u64>),
    /// `bytes=-n`: the last n.
    Last(u64),
}

impl RangeHeader {
    /// What it means for a blob of `size` bytes; `None` is 416.
    pub fn of(self, size: u64) -> Option<ByteRange> {
        let (start, end) = match self {
            RangeHeader::From(start, last) => (start, last.map_or(size, |last| size.min(last.saturating_add(1)))),
            RangeHeader::Last(n) => (size.saturating_sub(n), size),
        };
        (start < end).then_some(ByteRange { start, end })
    }
}

impl FromStr for RangeHeader {
    type Err = ();

    fn from_str(text: &str) -> Result<RangeHeader, ()> {
        let (unit, set) = text.trim().split_once('=').ok_or(())?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Err(());
        }
        let (first, last) = set.trim().split_once('-').ok_or(())?;
        match (first, last) {
            ("", "") => Err(()),
            ("", n) => Ok(RangeHeader::Last(number(n)?)),
            (first, "") => Ok(RangeHeader::From(number(first)?, None)),
            (first, last) => Ok(RangeHeader::From(number(first)?, Some(number(last)?))),
        }
    }
}

/// Digits only: the standard parser would take a sign. What overflows is beyond any blob.
fn number(text: &str) -> Result<u64, ()> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(());
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(header: &str, size: u64) -> Option<(u64, u64)> {
        header.parse::<RangeHeader>().unwrap().of(size).map(|range| (range.start, range.end))
    }

    #[test]
    fn the_cases_of_the_conformance_suite() {
        assert_eq!(of("bytes=500-1499", 2048), Some((500, 1500)));
        assert_eq!(of("bytes=500-", 2048), Some((500, 2048)));
        assert_eq!(of("bytes=-500", 2048), Some((1548, 2048)));
        assert_eq!(of("bytes=2000-5000", 2048), Some((2000, 2048)));
        assert_eq!(of("bytes=500-0", 2048), None);
        assert_eq!(of("bytes=5000-10000", 2048), None);
        assert_eq!(of("bytes=0-", 0), None);
        assert_eq!(of("bytes=-0", 10), None);
        assert_eq!(of("bytes=0-99999999999999999999999", 10), Some((0, 10)));
    }

    #[test]
    fn what_is_not_one_range_is_no_range() {
        for text in
            ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1-2,4-5", "items=0-1", "bytes=+1-2", "bytes=1--2"]
        {
            assert_eq!(text.parse::<RangeHeader>(), Err(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_range_is_never_empty_and_never_outside(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Some(range) = header.parse::<RangeHeader>().ok().and_then(|header| header.of(size)) {
                prop_assert!(range.start < range.end && range.end <= size);
                prop_assert!(range.length() >= 1);
            }
        }
    }
}
