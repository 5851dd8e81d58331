//! `larder check-config` and the example configurations, through the built program. Never starts a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use toml::{Table, Value};

struct Answer {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program with nothing in its environment but `environment`.
fn larder(arguments: &[&str], environment: &[(&str, &str)]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config").join(name)
}

/// Runs check-config on `text`.
fn check(text: &str, environment: &[(&str, &str)]) -> Answer {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("larder.toml");
    fs::write(&file, text).unwrap();
    larder(&["check-config", file.to_str().unwrap()], environment)
}

#[test]
fn the_example_configurations_are_accepted() {
    for name in ["minimal.toml", "full.toml"] {
        let answer = larder(&["check-config", example(name).to_str().unwrap()], &[]);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{name}");
        assert!(!answer.out.contains("# note"), "{name}: {}", answer.out);
        assert!(answer.out.parse::<Table>().is_ok(), "{}", answer.out);
    }
}

#[test]
fn the_full_configuration_is_the_defaults_written_out() {
    assert_eq!(larder(&["check-config", example("full.toml").to_str().unwrap()], &[]).out, check("", &[]).out);
}

/// Whether `line` of an example sets a key or begins a section.
fn is_setting(line: &str) -> bool {
    let word = line.trim_start_matches('[').split([' ', ']']).next().unwrap_or_default();
    let is_key = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.'));
    is_key && (line.starts_with('[') || line[word.len()..].starts_with(" = "))
}

/// The full configuration with the examples in it taken out of their comments.
fn full_uncommented() -> Vec<String> {
    let text = fs::read_to_string(example("full.toml")).unwrap();
    text.lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn the_full_configuration_mentions_every_key() {
    let mut mentioned = BTreeSet::new();
    collect_keys(&Value::Table(full_uncommented().join("\n").parse().unwrap()), "", &mut mentioned);
    assert_eq!(mentioned, larder::config::keys().map(str::to_owned).collect());
}

/// A row of the tables in `docs/configuration.md`.
struct Row {
    default: String,
    variable: Option<String>,
}

fn documented() -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(path).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, kind, default, variable, _does] = cells[..] else { panic!("five cells: {line}") };
        assert!(!kind.is_empty(), "{line}");
        let row = Row {
            default: default.to_owned(),
            variable: (variable != "none").then(|| variable.trim_matches('`').to_owned()),
        };
        assert!(rows.insert(key.trim_matches('`').to_owned(), row).is_none(), "twice: {line}");
    }
    rows
}

#[test]
fn the_reference_has_every_key_with_its_default_and_its_variable() {
    let text = "[registry]\nhtpasswd = \"/etc/larder/htpasswd\"\n[[registry.repository]]\npattern = \"own/**\"\n";
    let (plain, with_registry) = (check("", &[]), check(text, &[]));
    assert_eq!((plain.code, with_registry.code), (0, 0), "{}{}", plain.err, with_registry.err);
    let mut defaults = BTreeMap::new();
    collect_values(&Value::Table(with_registry.out.parse().unwrap()), "", &mut defaults);
    // These are there only because the text above sets them.
    for set in ["registry.htpasswd", "registry.repository.pattern"] {
        assert!(defaults.remove(set).is_some());
    }
    let rows = documented();
    let listed: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(listed, larder::config::keys().collect(), "docs/configuration.md lists other keys than there are");
    for (key, row) in rows {
        let is_list = defaults.get(&key).is_some_and(|value| value.starts_with('['));
        let variable = larder::config::variable(&key).filter(|_| !is_list);
        assert_eq!(row.variable, variable, "{key}");
        if let (Some(variable), Some(value)) = (variable, defaults.get(&key)) {
            let answer = check(text, &[(variable.as_str(), value.trim_matches('"'))]);
            assert_eq!(answer.code, 0, "{variable}: {}", answer.err);
        }
        match defaults.get(&key) {
            Some(value) => assert_eq!(row.default, format!("`{value}`"), "{key}"),
            None => assert!(!row.default.contains('`') && !row.default.is_empty(), "{key} has no default"),
        }
    }
}

fn collect_values(value: &Value, key: &str, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, below) in table {
                let dot = if key.is_empty() { "" } else { "." };
                collect_values(below, &format!("{key}{dot}{name}"), into);
            }
        }
        Value::Array(elements) if elements.iter().any(Value::is_table) => {
            elements.iter().for_each(|element| collect_values(element, key, into));
        }
        _ => drop(into.insert(key.to_owned(), value.to_string())),
    }
}

fn collect_keys(value: &Value, key: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            for (name, below) in table {
                let dot = if key.is_empty() { "" } else { "." };
                collect_keys(below, &format!("{key}{dot}{name}"), into);
            }
        }
        Value::Array(elements) if elements.iter().any(Value::is_table) => {
            elements.iter().for_each(|element| collect_keys(element, key, into));
        }
        _ => drop(into.insert(key.to_owned())),
    }
}

#[test]
fn what_is_printed_is_a_configuration_that_prints_the_same() {
    let text = "[cache]\npin = [\"a:*\"]\ntag_ttl = \"90s\"\n[[upstream]]\n[[upstream]]\nname = \"ghcr.io\"\n";
    let first = check(text, &[("LARDER_MIRROR_LISTEN", "0.0.0.0:80")]);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.out.contains("listen = \"0.0.0.0:80\""), "{}", first.out);
    assert!(first.out.contains("tag_ttl = \"1m 30s\""), "{}", first.out);
    assert!(first.out.contains("url = \"https://ghcr.io\""), "{}", first.out);
    assert!(first.out.contains("pin = [\"a:*\"]"), "{}", first.out);
    assert_eq!(check(&first.out, &[]).out, first.out);
}

#[test]
fn a_refused_configuration_is_one_line_and_code_2() {
    for (text, end) in [
        (
            "[cache]\ntag_ttl = \"5 parsecs\"",
            "larder.toml: cache.tag_ttl = \"5 parsecs\": not a duration; write it like 30s, 5m or 1h\n",
        ),
        ("[cache]\ntag_tl = \"5m\"", "larder.toml: cache.tag_tl: no such key; did you mean cache.tag_ttl?\n"),
        ("[mirror", "larder.toml: line 1, column 8: not TOML: unclosed table, expected `]`\n"),
    ] {
        let answer = check(text, &[]);
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{text}");
        assert!(answer.err.starts_with("larder: ") && answer.err.ends_with(end), "{}", answer.err);
        assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
    }
    let absent = larder(&["check-config", "/no/such.toml"], &[]);
    assert_eq!(absent.code, 2);
    assert!(absent.err.starts_with("larder: /no/such.toml: cannot be read: "), "{}", absent.err);
}

#[test]
fn serve_refuses_what_check_config_refuses_and_names_the_variable() {
    let answer = larder(&["serve"], &[("LARDER_CACHE_TAG_TTL", "soon")]);
    assert_eq!(answer.code, 2);
    let line = "larder: LARDER_CACHE_TAG_TTL = \"soon\": not a duration; write it like 30s, 5m or 1h\n";
    assert_eq!(answer.err, line);
    assert_eq!(larder(&["serve", "--config", "/no/such.toml"], &[]).code, 2);
    for (arguments, variables) in [
        (&["serve", "--log", "larder=loud"][..], &[("RUST_LOG", "info")][..]),
        (&["serve"], &[("LARDER_LOG", "larder=loud"), ("RUST_LOG", "info")]),
        (&["serve"], &[("RUST_LOG", "larder=loud")]),
    ] {
        let filter = larder(arguments, variables);
        assert_eq!((filter.code, filter.err.lines().count()), (2, 1), "{}", filter.err);
        assert!(filter.err.contains("\"larder=loud\""), "{}", filter.err);
    }
}

#[test]
fn wrong_use_is_code_2_and_help_is_code_0() {
    assert_eq!(larder(&[], &[]).code, 2);
    assert_eq!(larder(&["check-config"], &[]).code, 2);
    assert_eq!(larder(&["brew"], &[]).code, 2);
    for arguments in [&["--help"][..], &["serve", "--help"], &["check-config", "--help"]] {
        let answer = larder(arguments, &[]);
        assert_eq!(answer.code, 0);
        assert!(answer.out.contains("Example: larder "), "{}", answer.out);
    }
}

#[test]
fn a_password_is_never_printed() {
    const PASSWORD: &str = "correct-horse-battery";
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("hub");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let account = format!("[[upstream]]\nusername = \"me\"\npassword_file = \"{}\"\n", file.display());
    let variable = [("LARDER_UPSTREAM_PASSWORD", PASSWORD)];
    for (text, environment, code) in [
        (account.as_str(), &[][..], 0),
        ("[[upstream]]\nusername = \"me\"\n", &variable, 0),
        ("", &variable, 2),
        (&format!("{account}password = \"{PASSWORD}\"\n"), &[], 2),
        (&format!("[[upstream]]\npassword = {PASSWORD}\n"), &[], 2),
        (&format!("[[upstream]]\nurl = \"https://me:{PASSWORD}@registry.lan\"\n"), &[], 2),
        ("", &[("LARDER_UPSTREAM_PASSWRD", PASSWORD)], 2),
        ("", &[("LARDER_UPSTREAM_PROXY", "http://me:correct-horse-battery@proxy:3128")], 2),
    ] {
        let answer = check(text, environment);
        assert_eq!(answer.code, code, "{}", answer.err);
        assert!(!answer.out.contains(PASSWORD) && !answer.err.contains(PASSWORD), "{}{}", answer.out, answer.err);
        assert_eq!(answer.out.contains("password = \"***\""), code == 0, "{}", answer.out);
    }
}
