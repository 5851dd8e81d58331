//! The dashboard, the rules and the list of metrics agree with each other and with the running server.
//!
//! What Prometheus itself thinks of them is tried in `clients/prometheus.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::get;
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;

/// A file of `grafana/`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("grafana/{name}: {error}"))
}

/// A row of the README's table of metrics.
pub struct Metric {
    pub name: String,
    /// The program does not count it yet.
    pub is_later: bool,
    kind: String,
}

/// What the README says there is.
pub fn metrics() -> Vec<Metric> {
    let readme = text("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | ")?;
        let kind = rest.split(" |").next()?.to_owned();
        let is_metric = matches!(kind.as_str(), "counter" | "gauge" | "histogram");
        is_metric.then(|| Metric { name: name.to_owned(), is_later: rest.contains("*not yet*"), kind })
    });
    let metrics: Vec<Metric> = rows.collect();
    assert!(metrics.len() > 20, "the table of metrics was not found");
    metrics
}

/// One panel with its queries.
pub struct Panel {
    pub title: String,
    pub expressions: Vec<String>,
    value: Value,
}

/// Every panel of the dashboard that is not a row, those in folded rows included.
pub fn panels() -> Vec<Panel> {
    let dashboard = dashboard();
    let rows = dashboard["panels"].as_array().unwrap();
    let folded = rows.iter().filter_map(|row| row["panels"].as_array()).flatten();
    let panels = rows.iter().chain(folded).filter(|panel| panel["type"] != "row").map(|panel| Panel {
        title: panel["title"].as_str().unwrap().to_owned(),
        expressions: panel["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| target["expr"].as_str().unwrap().to_owned())
            .collect(),
        value: panel.clone(),
    });
    panels.collect()
}

/// The rules of both files: their names, and what they evaluate.
pub fn rules() -> Vec<(String, String)> {
    let mut rules = Vec::new();
    for name in ["rules/recording.yml", "rules/alerts.yml"] {
        for rule in rules_of(name) {
            let called = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
            rules.push((called.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
        }
    }
    rules
}

fn rules_of(name: &str) -> Vec<Value> {
    let rules: Value = serde_yaml_ng::from_str(&text(name)).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The names of metrics in an expression or a page: ours, and those of the process. A recorded one has colons.
pub fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("larder_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// The metric that a series belongs to: a histogram has several.
fn metric_of(series: &str, metrics: &[Metric]) -> Option<String> {
    let is = |name: &str, kind: Option<&str>| {
        metrics.iter().any(|metric| metric.name == name && kind.is_none_or(|kind| metric.kind == kind))
    };
    if is(series, None) {
        return Some(series.to_owned());
    }
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix))?;
    is(base, Some("histogram")).then(|| base.to_owned())
}

fn dashboard() -> Value {
    serde_json::from_str(&text("dashboard.json")).unwrap()
}

#[test]
fn every_expression_names_metrics_that_the_readme_lists() {
    let metrics = metrics();
    let recorded: BTreeSet<String> =
        rules().into_iter().map(|(name, _)| name).filter(|name| name.contains(':')).collect();
    let from_panels = panels().into_iter().flat_map(|panel| {
        let title = panel.title.clone();
        panel.expressions.into_iter().map(move |expression| (title.clone(), expression))
    });
    let mut used = BTreeSet::new();
    for (place, expression) in from_panels.chain(rules()) {
        for name in names_in(&expression) {
            let known = metric_of(&name, &metrics);
            assert!(known.is_some(), "{place}: README.md does not list {name}");
            used.extend(known);
        }
        for word in expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')) {
            let is_recorded = word.contains(":larder");
            assert!(!is_recorded || recorded.contains(word), "{place}: no rule records {word}");
        }
    }
    let unused = metrics.iter().filter(|metric| metric.name.starts_with("larder_") && !used.contains(&metric.name));
    let unused: Vec<&str> = unused.map(|metric| metric.name.as_str()).collect();
    assert!(unused.is_empty(), "nothing shows {unused:?}");
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_has_an_id_of_its_own() {
    let dashboard = dashboard();
    for (key, wanted) in [("title", "Larder"), ("uid", "larder")] {
        assert_eq!(dashboard[key], wanted);
    }
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "instance"]);
    let mut ids = BTreeSet::new();
    let rows = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row").cloned();
    for row in rows {
        assert!(ids.insert(row["id"].as_u64().unwrap()), "two panels have the id {}", row["id"]);
    }
    let mut titles = BTreeSet::new();
    for panel in panels() {
        let (title, value) = (&panel.title, &panel.value);
        assert!(ids.insert(value["id"].as_u64().unwrap()), "two panels have the id {}", value["id"]);
        assert!(titles.insert(title.clone()), "two panels are called {title}");
        assert!(value["description"].as_str().is_some_and(|text| text.len() > 20), "{title}: what does it show?");
        assert!(
            value["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()),
            "{title}: unit"
        );
        assert!(!panel.expressions.is_empty(), "{title} asks nothing");
        for target in value["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title} is tied to one data source");
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("$instance"), "{title} does not heed the chosen instance: {expression}");
            assert!(target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty()), "{title}: legend");
        }
    }
}

#[test]
fn panels_do_not_lie_on_each_other() {
    let dashboard = dashboard();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is wider than the page", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(cells.insert((x, y)), "{} lies on another panel", panel["title"]);
        }
    }
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let alerts = rules_of("rules/alerts.yml");
    let tests = text("rules/tests.yml");
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        for annotation in ["summary", "what_it_means", "what_to_do"] {
            assert!(
                alert["annotations"][annotation].as_str().is_some_and(|text| text.len() > 20),
                "{name}: {annotation}"
            );
        }
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["page", "warning", "info"].contains(&severity), "{name}: severity {severity}");
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "rules/tests.yml never sees {name} fire");
    }
}

#[test]
fn the_provisioning_files_are_what_grafana_reads() {
    let source: Value = serde_yaml_ng::from_str(&text("provisioning/datasources/prometheus.yml")).unwrap();
    assert_eq!((&source["apiVersion"], &source["datasources"][0]["type"]), (&1.into(), &"prometheus".into()));
    let boards: Value = serde_yaml_ng::from_str(&text("provisioning/dashboards/larder.yml")).unwrap();
    assert_eq!((&boards["apiVersion"], &boards["providers"][0]["type"]), (&1.into(), &"file".into()));
    assert!(boards["providers"][0]["options"]["path"].is_string());
}

#[tokio::test]
async fn the_readme_lists_every_metric_that_the_server_shows() {
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    larder.get("/v2/library/alpha/manifests/latest").await;
    for digest in image.blob_digests() {
        larder.get(&format!("/v2/library/alpha/blobs/{digest}")).await;
    }
    let (page, metrics) = (get(larder.admin(), "/metrics").await.text(), metrics());
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let listed = metrics.iter().find(|metric| metric.name == name);
        let listed = listed.unwrap_or_else(|| panic!("grafana/README.md does not list {name}"));
        assert_eq!(listed.kind, kind, "{name}");
        assert!(!listed.is_later, "{name} is there: grafana/README.md still says \"not yet\"");
    }
    let shown = names_in(&page);
    let made_when_needed = [
        "larder_digest_mismatches_total",
        "larder_upstream_fallback_total",
        "larder_fallback_tags_total",
        "larder_tags_gone_total",
        "larder_incomplete_refused_total",
        "larder_certificate_expiry_timestamp_seconds",
        "larder_certificates_refused_total",
        "larder_cache_evictions_total",
        "larder_scrub_blobs_total",
    ];
    for metric in metrics.iter().filter(|metric| !metric.is_later && metric.kind != "histogram") {
        let is_there = shown.contains(&metric.name) || made_when_needed.contains(&metric.name.as_str());
        assert!(is_there, "grafana/README.md lists {}, which the server does not show", metric.name);
    }
}
