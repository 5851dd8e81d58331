//! Debian's Prometheus, scraping Larder: every rule and every expression of the dashboard is one that it can evaluate.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::process::{PATIENCE, Process, Program, run, wanted};
use super::scratch::{Scratch, private_address};
use crate::grafana::{self, Metric};
use crate::support::client::get;
use crate::support::hub::{Fault, Hub, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

const PROMETHEUS: Program = Program::new("prometheus", "prometheus");
const PROMTOOL: Program = Program::new("promtool", "prometheus");

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() {
    if !wanted(&[PROMTOOL]) {
        return;
    }
    let home = Scratch::new("promtool");
    let rules = [grafana::file("rules/recording.yml"), grafana::file("rules/alerts.yml")];
    run(PROMTOOL.command(home.path()).args(["check", "rules"]).args(rules));
    run(PROMTOOL.command(home.path()).args(["test", "rules"]).arg(grafana::file("rules/tests.yml")));
    run(PROMTOOL.command(home.path()).args(["check", "config"]).arg(grafana::file("prometheus.yml")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_evaluates_every_rule_and_every_panel() {
    if !wanted(&[PROMETHEUS, PROMTOOL]) {
        return;
    }
    let hub = Hub::plain().await;
    let home = Scratch::new("prom");
    // A listener with TLS, so that there is a certificate to watch.
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) =
        (home.write("cert.pem", &own.cert.pem()), home.write("key.pem", &own.signing_key.serialize_pem()));
    let registry = format!(
        "[registry]\nlisten = \"127.0.0.1:0\"\nanonymous = \"pull\"\ntls = {{ cert = {cert:?}, key = {key:?} }}"
    );
    let larder = Larder::configured(&hub, "", &format!("header_timeout = \"2s\"\n{registry}")).await;
    let prometheus = Prometheus::scraping(larder.admin(), &home).await;

    everything_that_can_happen(&hub, &larder).await;
    prometheus.sees_news().await;
    pulls(&hub, &larder, 2).await;
    prometheus.sees_news().await;

    let page = home.write("metrics", &get(larder.admin(), "/metrics").await.text());
    let mut check = PROMTOOL.command(home.path());
    run(check.args(["check", "metrics"]).stdin(File::open(page).unwrap()));

    let metrics = grafana::metrics();
    for panel in grafana::panels() {
        for expression in &panel.expressions {
            let answer = prometheus.query(expression).await.unwrap_or_else(|error| panic!("{}: {error}", panel.title));
            let has_data = answer.iter().any(|value| !value.is_nan());
            let is_elsewhere = COUNTED_ELSEWHERE.iter().any(|name| expression.contains(name));
            let may_be_empty = is_elsewhere || is_later(expression, &metrics);
            assert!(has_data || may_be_empty, "{}: no data for {expression}", panel.title);
        }
    }
    for (name, expression) in grafana::rules() {
        prometheus.query(&expression).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        if name.contains(':') {
            assert!(!prometheus.query(&name).await.unwrap().is_empty(), "{name} records nothing");
        }
    }
    prometheus.every_rule_is_well().await;
}

/// What does not happen here: the tests of eviction and of rot look at these.
const COUNTED_ELSEWHERE: [&str; 2] = ["larder_cache_evictions_total", "larder_scrub_blobs_total"];

/// Whether this version does not count what the expression is about.
fn is_later(expression: &str, metrics: &[Metric]) -> bool {
    metrics.iter().any(|metric| metric.is_later && expression.contains(&metric.name))
}

/// A pull of a new image, twice.
async fn pulls(hub: &Hub, larder: &Larder, seed: u64) {
    let image = Image::small(seed);
    hub.push("library/alpha", &format!("v{seed}"), &image);
    for _ in 0..2 {
        assert_eq!(larder.get(&format!("/v2/library/alpha/manifests/v{seed}")).await.status, 200);
        for digest in image.blob_digests() {
            assert!(larder.get(&format!("/v2/library/alpha/blobs/{digest}")).await.complete);
        }
    }
}

/// A hit, a miss, what does not exist, wrong bytes, and an outage with a stale answer and one that cannot be given.
async fn everything_that_can_happen(hub: &Hub, larder: &Larder) {
    pulls(hub, larder, 1).await;
    assert_eq!(larder.get("/v2/library/alpha/manifests/none").await.status, 404);
    let rule = hub.fault(Target::Cdn, Fault::WrongBytes);
    let wrong = hub.add_blob("library/alpha", "wrong");
    larder.get(&format!("/v2/library/alpha/blobs/{wrong}")).await;
    rule.lift();
    hub.stop().await;
    larder.clock.advance(Duration::from_secs(301));
    let stale = larder.get("/v2/library/alpha/manifests/v1").await;
    assert_eq!(stale.header("x-larder-cache"), Some("stale"));
    assert_eq!(larder.get("/v2/library/beta/manifests/latest").await.status, 503);
    hub.start_again().await;
    // What failed is not asked again for a while; after it, upstream is well.
    larder.clock.advance(Duration::from_secs(301));
}

struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    async fn scraping(target: SocketAddr, home: &Scratch) -> Prometheus {
        let shipped = fs::read_to_string(grafana::file("prometheus.yml")).unwrap();
        let config = shipped
            .replace("15s", "1s")
            .replace("rules/", &format!("{}/", grafana::file("rules").display()))
            .replace("larder:5080", &target.to_string());
        let config = home.write("prometheus.yml", &config);
        let address = private_address();
        let mut command = PROMETHEUS.command(home.path());
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", home.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn(PROMETHEUS.name, &mut command, home.join("log"));
        process.wait_until_ready(|process| process.log().contains("ready to receive web requests").then_some(()));
        Prometheus { _process: process, address }
    }

    async fn ask(&self, path: &str) -> Value {
        get(self.address, path).await.json()
    }

    /// The values of an instant query. The dashboard's variables have the values of someone who chose nothing.
    async fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let filled = [("$__rate_interval", "1m"), ("$__range", "1m"), ("$instance", ".*")];
        let filled = filled.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
        let answer = self.ask(&format!("/api/v1/query?query={}", utf8_percent_encode(&filled, NON_ALPHANUMERIC))).await;
        match answer["status"].as_str() {
            Some("success") => {
                let series = answer["data"]["result"].as_array().ok_or("no vector")?;
                Ok(series.iter().map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect())
            }
            _ => Err(format!("{filled}: {answer}")),
        }
    }

    /// Waits until it has scraped two times more, so that what was counted before is in it, and evaluated its rules.
    async fn sees_news(&self) {
        let scrapes = "count_over_time(larder_build_info[10m])";
        let before = self.query(scrapes).await.unwrap().first().copied().unwrap_or_default();
        until("Prometheus scrapes Larder", async || {
            self.query(scrapes).await.unwrap().first().is_some_and(|count| *count >= before + 2.0)
        })
        .await;
    }

    /// Waits until every rule was evaluated, and none had an error.
    async fn every_rule_is_well(&self) {
        let shipped = grafana::rules().len();
        until("Prometheus evaluates every rule", async || {
            let answer = self.ask("/api/v1/rules").await;
            let groups = answer["data"]["groups"].as_array().unwrap();
            let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
            assert_eq!(rules.len(), shipped);
            let bad = rules.iter().find(|rule| rule["health"] == "err");
            assert!(bad.is_none(), "{}", bad.unwrap());
            rules.iter().all(|rule| rule["health"] == "ok")
        })
        .await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "{what}: not within {PATIENCE:?}");
}
