//! Every way in which asking an upstream can end without an answer. Never holds a token, a password or a signed URL.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use thiserror::Error;

/// The three services behind one upstream; each has a health of its own (protocol 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The registry that the configuration names.
    Registry,
    /// Where it sends us for tokens.
    Token,
    /// Where it redirects us to for content.
    Cdn,
}

impl Part {
    /// All of them, in the order in which they are met.
    pub const ALL: [Part; 3] = [Part::Registry, Part::Token, Part::Cdn];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Registry => "registry",
            Part::Token => "token",
            Part::Cdn => "cdn",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Registry => "the registry",
            Part::Token => "the token service",
            Part::Cdn => "the CDN",
        })
    }
}

/// What was waited for when time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The name's address, the connection, TLS.
    Connect,
    /// The head of the answer.
    Head,
    /// The next bytes of its body.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "could not be connected to",
            Phase::Head => "took the request and did not answer",
            Phase::Body => "began to answer and then sent nothing",
        })
    }
}

/// Why an upstream gave no answer, or none that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UpstreamError {
    /// No name, no connection, no TLS, or a connection that broke before the answer.
    #[error("{part} cannot be reached: {reason}")]
    Unreachable {
        /// Who.
        part: Part,
        /// As the system or rustls puts it.
        reason: String,
    },
    /// A time limit passed.
    #[error("{part} {phase} within the time allowed")]
    TimedOut {
        /// Who.
        part: Part,
        /// What was waited for.
        phase: Phase,
    },
    /// 429.
    #[error("{part} answers that we ask too much (429)")]
    RateLimited {
        /// Who.
        part: Part,
        /// How long it wants to be left alone, if it said.
        retry_after: Option<Duration>,
    },
    /// A 404 that the registry itself has spoken.
    #[error("the registry does not have it (404)")]
    NotFound,
    /// A 401 or 403 although the token service was healthy: it does not exist, or not for us.
    #[error("the registry does not let us read it, if it exists at all ({status})")]
    Refused {
        /// 401 or 403.
        status: u16,
    },
    /// A 416: the blob has no such byte, or other bytes than we thought.
    #[error("{part} does not have so many bytes (416)")]
    OutOfRange {
        /// Who.
        part: Part,
    },
    /// The configured account is not accepted.
    #[error("{part} does not accept our account (401): check user name and password")]
    AccountRefused {
        /// Who.
        part: Part,
    },
    /// Any other status that is no answer to the question.
    #[error("{part} answered {status}")]
    Status {
        /// Who.
        part: Part,
        /// What.
        status: u16,
    },
    /// An answer that cannot be used: a page in HTML, another encoding, a wrong range, too large.
    #[error("{part} gave an answer that cannot be used: {reason}")]
    Invalid {
        /// Who.
        part: Part,
        /// What is wrong with it.
        reason: String,
    },
    /// A realm or a redirect to where this upstream has no business to send us.
    #[error("{part} is where we do not go: {reason}")]
    Forbidden {
        /// What would be there.
        part: Part,
        /// Where, and which rule is against it.
        reason: String,
    },
    /// It is known to be out of order, and was not asked.
    #[error("{part} has been out of order since {}: {reason}", moment(*since))]
    Down {
        /// Who.
        part: Part,
        /// In seconds since 1970.
        since: u64,
        /// What went wrong with it.
        reason: String,
    },
    /// The body ended before its declared length.
    #[error("{part} broke off in the middle: {reason}")]
    Cut {
        /// Who.
        part: Part,
        /// As far as it is known.
        reason: String,
    },
}

impl UpstreamError {
    /// Whether a working upstream said that it has no such thing for us. Once is no proof: outages have said so too.
    pub fn is_absence(&self) -> bool {
        matches!(self, UpstreamError::NotFound | UpstreamError::Refused { .. })
    }

    /// Whether the upstream, or the way to it, is not in working order. One that limits our rate is.
    pub fn is_outage(&self) -> bool {
        !self.is_absence() && !matches!(self, UpstreamError::RateLimited { .. } | UpstreamError::OutOfRange { .. })
    }

    /// Whether, as the answer to a HEAD, it says little about what a GET would bring.
    pub fn is_doubtful(&self) -> bool {
        matches!(self, UpstreamError::Refused { .. } | UpstreamError::Status { .. } | UpstreamError::Invalid { .. })
    }

    /// Whether asking again in a moment is likely to help.
    pub fn is_transient(&self) -> bool {
        matches!(self, UpstreamError::Status { status: 500 | 502 | 503 | 504, .. })
    }

    /// What is wrong, without who.
    pub fn reason(&self) -> String {
        match self {
            UpstreamError::Unreachable { reason, .. }
            | UpstreamError::Invalid { reason, .. }
            | UpstreamError::Forbidden { reason, .. }
            | UpstreamError::Cut { reason, .. }
            | UpstreamError::Down { reason, .. } => reason.clone(),
            UpstreamError::TimedOut { phase, .. } => format!("it {phase} within the time allowed"),
            UpstreamError::Status { status, .. } => format!("it answers {status}"),
            UpstreamError::NotFound
            | UpstreamError::Refused { .. }
            | UpstreamError::RateLimited { .. }
            | UpstreamError::OutOfRange { .. }
            | UpstreamError::AccountRefused { .. } => self.to_string(),
        }
    }

    /// Whose error it is.
    pub fn part(&self) -> Part {
        match self {
            UpstreamError::NotFound | UpstreamError::Refused { .. } => Part::Registry,
            UpstreamError::Unreachable { part, .. }
            | UpstreamError::TimedOut { part, .. }
            | UpstreamError::RateLimited { part, .. }
            | UpstreamError::OutOfRange { part }
            | UpstreamError::AccountRefused { part }
            | UpstreamError::Status { part, .. }
            | UpstreamError::Invalid { part, .. }
            | UpstreamError::Forbidden { part, .. }
            | UpstreamError::Down { part, .. }
            | UpstreamError::Cut { part, .. } => *part,
        }
    }
}

fn moment(unix_seconds: u64) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_says_since_when_and_why() {
        let down = UpstreamError::Down { part: Part::Cdn, since: 1_795_262_584, reason: "connection refused".into() };
        assert_eq!(down.to_string(), "the CDN has been out of order since 2026-11-21T12:03:04Z: connection refused");
        assert!(down.is_outage() && !down.is_doubtful());
    }

    #[test]
    fn an_absence_is_no_outage_and_a_rate_limit_is_neither() {
        let part = Part::Registry;
        for (error, absence, outage) in [
            (UpstreamError::NotFound, true, false),
            (UpstreamError::Refused { status: 401 }, true, false),
            (UpstreamError::RateLimited { part, retry_after: None }, false, false),
            (UpstreamError::OutOfRange { part }, false, false),
            (UpstreamError::Status { part, status: 404 }, false, true),
            (UpstreamError::AccountRefused { part }, false, true),
            (UpstreamError::TimedOut { part, phase: Phase::Head }, false, true),
        ] {
            assert_eq!((error.is_absence(), error.is_outage()), (absence, outage), "{error}");
        }
    }
}
