//! How an answer came about: one word for the log, the metric and the `X-Larder-Cache` header.

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was here, and upstream was not asked.
    Hit,
    /// It was fetched for this request.
    Miss,
    /// It was being fetched for someone else already.
    Joined,
    /// It was here, and upstream confirmed that it may be served.
    Revalidated,
    /// It was here, and upstream could not be asked whether it is still so.
    Stale,
    /// It came from upstream and was not kept.
    Bypass,
}

impl Outcome {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Miss => "miss",
            Outcome::Joined => "joined",
            Outcome::Revalidated => "revalidated",
            Outcome::Stale => "stale",
            Outcome::Bypass => "bypass",
        }
    }
}
