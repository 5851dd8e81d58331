//! How much and how long: sizes, times, rates and counts as people write them.
//!
//! Each is exact: what is written out again is the same number. Never negative, never so large that adding it to a
//! clock or a counter could overflow.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::text_value;
use crate::storage;

/// Longest lifetime: ten years, which is for ever, and can still be added to any clock.
const LONGEST_TTL: Duration = Duration::from_secs(3650 * 86_400);
/// Longest wait.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Largest size, in bytes: what a TOML integer holds.
const LARGEST: u64 = i64::MAX as u64;

/// A number of bytes: `10GiB`, `500MB`, `1.5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub(super) const fn mebibytes(count: u64) -> Size {
        Size(count << 20)
    }

    pub(super) const fn gibibytes(count: u64) -> Size {
        Size(count << 30)
    }

    fn parse(text: &str) -> Option<Size> {
        // A bare number is more likely a forgotten unit than a number of bytes.
        let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic()) || text == "0";
        let size = text.parse::<ByteSize>().ok().filter(|_| has_unit)?.as_u64();
        (size <= LARGEST).then_some(Size(size))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The crate's own Display rounds to one decimal.
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let exact = units.into_iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        let (unit, shift) = exact.unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

text_value!(Size, "not a size; write it like 500MB, 10GiB or 1.5TiB");

/// How long an answer is good for: `5m`. Zero: it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

impl Ttl {
    /// As a duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    pub(super) const fn seconds(count: u64) -> Ttl {
        Ttl(Duration::from_secs(count))
    }

    fn parse(text: &str) -> Option<Ttl> {
        duration(text).filter(|ttl| *ttl <= LONGEST_TTL).map(Ttl)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

text_value!(Ttl, "not a duration; write it like 30s, 5m or 1h");

/// How long to wait for something: `10s`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(Duration);

impl Timeout {
    /// As a duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    pub(super) const fn seconds(count: u64) -> Timeout {
        Timeout(Duration::from_secs(count))
    }

    fn parse(text: &str) -> Option<Timeout> {
        duration(text).filter(|wait| !wait.is_zero() && *wait <= LONGEST_TIMEOUT).map(Timeout)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

text_value!(Timeout, "not a time to wait; write it like 500ms, 10s or 1m, more than nothing and at most a day");

fn duration(text: &str) -> Option<Duration> {
    // `M` is a month to humantime. Nobody who writes "5M" in a configuration means five months.
    humantime::parse_duration(text).ok().filter(|_| !text.contains('M'))
}

/// How fast bytes may come from an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bandwidth {
    /// As fast as they come.
    Unlimited,
    /// At most so many bytes in a second: `50MiB/s`.
    PerSecond(Size),
}

impl Bandwidth {
    /// In bytes, if there is a limit.
    pub const fn per_second(self) -> Option<u64> {
        match self {
            Bandwidth::Unlimited => None,
            Bandwidth::PerSecond(size) => Some(size.bytes()),
        }
    }

    fn parse(text: &str) -> Option<Bandwidth> {
        if text == "unlimited" {
            return Some(Bandwidth::Unlimited);
        }
        let size = Size::parse(text.strip_suffix("/s")?.trim_end())?;
        (size.bytes() > 0).then_some(Bandwidth::PerSecond(size))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bandwidth::Unlimited => f.write_str("unlimited"),
            Bandwidth::PerSecond(size) => write!(f, "{size}/s"),
        }
    }
}

text_value!(Bandwidth, "not a bandwidth; write unlimited, or a rate like 50MiB/s");

/// How often the bytes of blobs that are sent are checked: `15m`, `always`, `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Each time.
    Always,
    /// When they come from disk, and when the last time is so long ago.
    After(Ttl),
    /// Not at all.
    Never,
}

impl Verify {
    /// As the store knows it.
    pub const fn get(self) -> storage::Verify {
        match self {
            Verify::Always => storage::Verify::Always,
            Verify::After(ttl) => storage::Verify::After(ttl.get()),
            Verify::Never => storage::Verify::Never,
        }
    }

    fn parse(text: &str) -> Option<Verify> {
        match text {
            "always" => Some(Verify::Always),
            "never" => Some(Verify::Never),
            after => Ttl::parse(after).map(Verify::After),
        }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verify::Always => f.write_str("always"),
            Verify::After(ttl) => ttl.fmt(f),
            Verify::Never => f.write_str("never"),
        }
    }
}

text_value!(Verify, "not a word about checking; write always, never, or a time like 15m");

/// How often something is done by itself: `7d`, `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Once in so long a time, which is an hour at least.
    Each(Ttl),
    /// Only when someone asks for it.
    Never,
}

impl Every {
    /// As a duration, if it is ever.
    pub const fn get(self) -> Option<Duration> {
        match self {
            Every::Each(ttl) => Some(ttl.get()),
            Every::Never => None,
        }
    }

    fn parse(text: &str) -> Option<Every> {
        if text == "never" {
            return Some(Every::Never);
        }
        Ttl::parse(text).filter(|ttl| *ttl >= Ttl::seconds(3600)).map(Every::Each)
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Every::Each(ttl) => ttl.fmt(f),
            Every::Never => f.write_str("never"),
        }
    }
}

text_value!(Every, "not an interval; write never, or a time like 7d, an hour at least");

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(super) const fn new(count: u32) -> Self {
        assert!(MIN <= count && count <= MAX);
        Count(count)
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Count<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = toml::Value::deserialize(deserializer)?.as_integer().and_then(|count| u32::try_from(count).ok());
        count
            .filter(|count| (MIN..=MAX).contains(count))
            .map(Count)
            .ok_or_else(|| D::Error::custom(format_args!("must be a whole number from {MIN} to {MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_exact_and_need_a_unit() {
        for (text, bytes) in
            [("10GiB", 10 << 30), ("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("7B", 7), ("0", 0), ("4tib", 4 << 40)]
        {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for bad in ["", "10", "-1GiB", "GiB", "10 parsecs", "1e3GiB", "16EiB", "99999999999999999999TiB", "1.2.3MB"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_an_end() {
        assert_eq!(Ttl::parse("5m"), Some(Ttl::seconds(300)));
        assert_eq!(Ttl::parse("0s"), Some(Ttl::seconds(0)));
        assert_eq!(Timeout::parse("1h 30m"), Some(Timeout::seconds(5400)));
        for bad in ["", "5", "5 parsecs", "-5m", "5M", "500000000000y", "11years"] {
            assert_eq!(Ttl::parse(bad), None, "{bad}");
        }
        for bad in ["0s", "0ms", "2days"] {
            assert_eq!(Timeout::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_done_now_and_then_can_be_left_alone() {
        assert_eq!(Verify::parse("15m"), Some(Verify::After(Ttl::seconds(900))));
        assert_eq!((Verify::parse("always"), Verify::parse("never")), (Some(Verify::Always), Some(Verify::Never)));
        assert_eq!(Every::parse("7d"), Some(Every::Each(Ttl::seconds(604_800))));
        assert_eq!(Every::parse("never"), Some(Every::Never));
        for bad in ["", "sometimes", "15", "59m"] {
            assert_eq!(Every::parse(bad), None, "{bad}");
        }
        assert_eq!(Verify::parse("sometimes"), None);
    }

    #[test]
    fn a_bandwidth_is_a_rate() {
        assert_eq!(Bandwidth::parse("unlimited"), Some(Bandwidth::Unlimited));
        assert_eq!(Bandwidth::parse("50MiB/s"), Some(Bandwidth::PerSecond(Size(50 << 20))));
        for bad in ["", "50MiB", "0", "0B/s", "50/s", "Unlimited", "/s"] {
            assert_eq!(Bandwidth::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(bytes in 0..=LARGEST, ms in 0..=LONGEST_TTL.as_millis() as u64) {
            prop_assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
            let whole = Size((bytes >> 24 << 24).max(1 << 24));
            prop_assert_eq!(Size::parse(&whole.to_string()), Some(whole));
            let ttl = Ttl(Duration::from_millis(ms));
            prop_assert_eq!(Ttl::parse(&ttl.to_string()), Some(ttl));
        }
    }
}
