//! When a tag that is kept here counts as gone: its registry has said so twice, minutes apart, and was well all the time.
//!
//! Pure. Outages have answered 404 and 401 for what exists (protocol.md 2.6), so one word is not believed, nor any that
//! was spoken near trouble.

use std::time::{Duration, Instant};

/// How far apart the two words must be.
const APART: Duration = Duration::from_secs(120);
/// For so long after trouble the registry's health is in doubt.
const SETTLING: Duration = Duration::from_secs(30);

/// What a registry has said of a tag that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// When it said so first.
    pub first: Instant,
    /// The same, in seconds since 1970.
    pub since: u64,
    /// Whether it is gone.
    pub is_gone: bool,
}

/// How its registry is when it says that it has no such tag.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// Whether it is out of order.
    pub is_down: bool,
    /// When it last did not answer as it should.
    pub trouble: Option<Instant>,
}

/// What to make of a registry that says at `now` (at `unix`, in seconds since 1970) that it has no such tag.
pub fn said(before: Option<Absence>, now: Instant, unix: u64, health: Health) -> Option<Absence> {
    let is_settled = health.trouble.is_none_or(|trouble| now.saturating_duration_since(trouble) >= SETTLING);
    if health.is_down || !is_settled {
        return before;
    }
    let first = Absence { first: now, since: unix, is_gone: false };
    Some(match before {
        None => first,
        Some(absence) if absence.is_gone => absence,
        Some(absence) if health.trouble.is_some_and(|trouble| trouble > absence.first) => first,
        Some(absence) => Absence { is_gone: now.saturating_duration_since(absence.first) >= APART, ..absence },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Health = Health { is_down: false, trouble: None };

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any moment to count from")]
    fn two_words_minutes_apart_from_a_healthy_registry_and_nothing_less() {
        let start = Instant::now() + Duration::from_secs(10_000);
        let at = |seconds| start + Duration::from_secs(seconds);
        let say = |before, seconds, health| said(before, at(seconds), 1000 + seconds, health);
        let trouble = |seconds| Health { is_down: false, trouble: Some(at(seconds)) };

        let first = say(None, 0, WELL);
        assert_eq!(first, Some(Absence { first: at(0), since: 1000, is_gone: false }));
        assert_eq!(say(first, 119, WELL), first, "too soon");
        let gone = say(first, 120, WELL).unwrap();
        assert!(gone.is_gone && gone.since == 1000);
        assert_eq!(say(Some(gone), 500, WELL), Some(gone), "it stays gone");

        let down = Health { is_down: true, trouble: None };
        assert_eq!(say(None, 0, down), None, "an outage says nothing");
        assert_eq!(say(first, 500, down), first);
        assert_eq!(say(None, 50, trouble(30)), None, "its health is in doubt");
        assert!(say(None, 60, trouble(30)).is_some());
        let anew = say(first, 500, trouble(200));
        assert_eq!(anew, Some(Absence { first: at(500), since: 1500, is_gone: false }), "an outage lay in between");
        assert!(say(anew, 620, trouble(200)).unwrap().is_gone);
    }
}
