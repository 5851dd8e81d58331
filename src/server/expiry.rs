//! When a certificate ends: the one field that is read of our own certificates, of which rustls keeps nothing but bytes.
//!
//! DER as far as RFC 5280, 4.1 needs it. Never decides whether a certificate is good.

use time::{Date, Month, Time};

/// `[0]`, in which the version stands, if it is not 1.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate, in seconds since 1970.
pub fn end_of(certificate: &[u8]) -> Option<i64> {
    let (_, signed, _) = element(certificate)?;
    let (_, mut fields, _) = element(signed)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, after_the_begin) = element(validity)?;
    let (kind, text, _) = element(after_the_begin)?;
    seconds(kind, std::str::from_utf8(text).ok()?)
}

/// Tag and content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length follow; no certificate needs more than four.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, or with four digits of the year.
fn seconds(kind: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            // RFC 5280, 4.1.2.5.1.
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    Some(date.with_time(time).assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_is_read_in_both_ways_of_writing_a_year() {
        let key = KeyPair::generate().unwrap();
        // What ends in 2050 or later has the longer form; many names make the lengths longer, too.
        for (year, names) in [(2027, 1), (2049, 1), (2050, 1), (4096, 40)] {
            let names: Vec<String> = (0..names).map(|n| format!("mirror-{n}.example.lan")).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_after = date_time_ymd(year, 2, 3);
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(end_of(certificate.der()), Some(params.not_after.unix_timestamp()), "{year}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let own = rcgen::generate_simple_self_signed(["mirror.lan".to_owned()]).unwrap();
        let der = own.cert.der();
        assert!(end_of(der).is_some());
        for length in 0..160.min(der.len()) {
            assert_eq!(end_of(&der[..length]), None);
        }
        for (kind, text) in
            [(UTC_TIME, "270203040506"), (UTC_TIME, "271303040506Z"), (GENERALIZED_TIME, "20Z"), (1, "Z")]
        {
            assert_eq!(seconds(kind, text), None, "{text}");
        }
    }
}
