//! What `/api/status` and `/api/budget` say: plain values, gathered when somebody asks. Never a secret.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use super::served::Served;
use crate::cache::{Cache, FillReport, Spent};
use crate::upstream::{AccountReport, HostReport, PartState, Report};

/// How the server is.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    // Seconds since 1970, by the server's clock: what the other moments count against.
    now: u64,
    uptime_s: u64,
    upstreams: Vec<Report>,
    cache: Figures,
    // Answers so far, by how they came about.
    requests: BTreeMap<String, u64>,
    // Bytes of bodies sent to clients, by how they came about.
    response_bytes: BTreeMap<String, u64>,
    // Bytes of bodies that came over the line, all upstreams together.
    upstream_bytes: u64,
    fills_in_flight: u64,
    fills: Vec<FillReport>,
    // Where clients pull, as a URL for their configuration.
    mirror: String,
}

#[derive(Debug, Serialize)]
struct Figures {
    blobs: u64,
    bytes: u64,
    // On disk, with what is on its way in: what `max_bytes` bounds.
    used_bytes: u64,
    max_bytes: u64,
}

impl Status {
    /// Of what is `served`, and of what is counted in `registry`.
    pub fn of(served: &Served, registry: &Registry, now: u64, uptime: Duration) -> Status {
        let (cache, store) = (&served.cache, served.cache.store());
        let totals = store.index().totals();
        let counted = registry.gather();
        let fills =
            samples(&counted, "larder_fills_in_flight").map(|metric| metric.get_gauge().get_value()).sum::<f64>();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            now,
            uptime_s: uptime.as_secs(),
            upstreams: cache.upstreams(),
            cache: Figures {
                blobs: totals.blobs,
                bytes: totals.bytes,
                used_bytes: store.usage().total(),
                max_bytes: store.limits().max_size,
            },
            requests: by_outcome(&counted, "larder_requests_total"),
            response_bytes: by_outcome(&counted, "larder_response_bytes_total"),
            upstream_bytes: samples(&counted, "larder_upstream_bytes_total").map(count).sum(),
            fills_in_flight: fills as u64,
            fills: cache.fills(),
            mirror: served.mirror.clone(),
        }
    }
}

/// What is left of the rate limits, and what used them up.
#[derive(Debug, Serialize)]
pub struct Budget {
    accounts: Vec<Account>,
    spent: Vec<Spent>,
}

#[derive(Debug, Serialize)]
struct Account {
    upstream: String,
    #[serde(flatten)]
    account: AccountReport,
}

impl Budget {
    /// Of all upstreams' own hosts: fallbacks are nobody's budget.
    pub fn of(cache: &Cache) -> Budget {
        let accounts = cache.upstreams().into_iter().flat_map(|Report { name, registry, .. }| {
            let of = move |account| Account { upstream: name.clone(), account };
            registry.accounts.into_iter().map(of)
        });
        Budget { accounts: accounts.collect(), spent: cache.spent() }
    }
}

/// One line for each part of an upstream.
pub fn parts(report: &Report) -> Vec<String> {
    let of_host = |host: &HostReport, name: String| {
        let line = |part: &crate::upstream::PartReport| {
            let since = part.since.map(|since| format!(" since {}", date(since))).unwrap_or_default();
            let reason = part.reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
            match part.state {
                PartState::Up => format!("{name} {}: up", part.part),
                PartState::Doubtful => format!("{name} {}: in doubt{since}{reason}", part.part),
                PartState::Down => format!("{name} {}: out of order{since}{reason}", part.part),
            }
        };
        host.parts.iter().map(line).collect::<Vec<_>>()
    };
    let mut lines = of_host(&report.registry, report.name.clone());
    for fallback in &report.fallbacks {
        lines.extend(of_host(fallback, format!("{} fallback {}", report.name, fallback.host)));
    }
    lines
}

fn by_outcome(counted: &[MetricFamily], name: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for metric in samples(counted, name) {
        let outcome = metric.get_label().iter().find(|label| label.name() == "outcome");
        let outcome = outcome.map_or_else(String::new, |label| label.value().to_owned());
        *sums.entry(outcome).or_default() += count(metric);
    }
    sums
}

fn count(metric: &Metric) -> u64 {
    metric.get_counter().get_value() as u64
}

fn samples<'a>(counted: &'a [MetricFamily], name: &str) -> impl Iterator<Item = &'a Metric> {
    let family = counted.iter().find(|family| family.name() == name);
    family.into_iter().flat_map(|family| family.get_metric())
}

fn date(unix_seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds.min(250_000_000_000))).to_string()
}

/// An upstream's words, without what would begin a line of their own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
