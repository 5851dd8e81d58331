//! How an upstream is, for people and their tools: plain values, and never a secret. Nothing here is decided or asked.

use serde::Serialize;

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What clients call it.
    pub name: String,
    /// The registry.
    pub registry: HostReport,
    /// Its fallbacks, in the order in which they are asked.
    pub fallbacks: Vec<HostReport>,
}

/// One host of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// The host of its URL, with the port if one is written.
    pub host: String,
    /// Its parts: the registry, the token service and the CDN.
    pub parts: Vec<PartReport>,
    /// As whom it is asked.
    pub accounts: Vec<AccountReport>,
    /// Until when it wants to be asked nothing at all, in seconds since 1970.
    pub limited_until: Option<u64>,
}

/// One part of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// `registry`, `token` or `cdn`.
    pub part: &'static str,
    /// What is thought of it.
    pub state: PartState,
    /// Since when it is not well, in seconds since 1970.
    pub since: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// What is thought of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// It does what it should.
    Up,
    /// Something failed, and the probe looks into it.
    Doubtful,
    /// It is out of order, and only the probe asks it.
    Down,
}

/// One account at a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountReport {
    /// Its name; `anonymous` without one.
    pub name: String,
    /// Pulls in a window, as it was told.
    pub limit: Option<u64>,
    /// Those that were left.
    pub remaining: Option<u64>,
    /// The window's length in seconds.
    pub window_s: Option<u64>,
    /// When that was told, in seconds since 1970.
    pub told: Option<u64>,
    /// Until when it may not pull, in seconds since 1970.
    pub limited_until: Option<u64>,
    /// Whether its password was not accepted just now.
    pub is_refused: bool,
}
