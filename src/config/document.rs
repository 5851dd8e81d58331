//! The TOML document on its way to a configuration: read, overridden from the environment, completed, typed.
//!
//! It remembers what came from where, so that a complaint can name the place. Never knows what settings mean together:
//! that is `checks.rs`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::environment::Override;
use super::error::ConfigError;
use super::keys::{self, Shape};
use super::schema::Config;
use super::spot::{Spot, Step};
use super::values::UpstreamName;

/// A document that becomes a configuration.
#[derive(Debug)]
pub(super) struct Document {
    file: Option<PathBuf>,
    top: Value,
    /// Which environment variable put something where.
    variables: HashMap<Vec<Step>, String>,
}

impl Document {
    /// The file at `path`, or an empty document.
    ///
    /// # Errors
    /// It cannot be read, is not TOML, or has a key that no configuration has.
    pub(super) fn read(path: Option<&Path>) -> Result<Document, ConfigError> {
        let table = match path {
            Some(file) => read_table(file)?,
            None => Table::new(),
        };
        let top = Value::Table(table);
        let document = Document { file: path.map(Path::to_owned), top, variables: HashMap::new() };
        document.refuse_unknown_keys()?;
        Ok(document)
    }

    fn refuse_unknown_keys(&self) -> Result<(), ConfigError> {
        for spot in Spot::top(&self.top).settings() {
            let key = spot.key();
            match keys::shape(&key) {
                Some(Shape::Value) => {}
                Some(Shape::Section) if key.ends_with(".tls") => {
                    return Err(self.refused(&spot, "write it as { cert = \"….pem\", key = \"….pem\" }"));
                }
                Some(Shape::Section) => return Err(self.refused(&spot, format!("is a section; write it as [{key}]"))),
                Some(Shape::Repeated) => {
                    return Err(
                        self.refused(&spot, format!("is a section of which there can be many; write [[{key}]]"))
                    );
                }
                None => return Err(self.unknown(&spot)),
            }
        }
        Ok(())
    }

    /// Whoever has put a password into the file must read why that is refused, and not see it again.
    fn unknown(&self, spot: &Spot<'_>) -> ConfigError {
        let place = self.in_file(spot.shown());
        if spot.key().ends_with(".password") {
            let reason = "a password does not belong in this file; use password_file, or LARDER_UPSTREAM_PASSWORD";
            return ConfigError::Refused { place, reason: reason.to_owned() };
        }
        if spot.key() == "admin.token" {
            let reason = "a token does not belong in this file; use token_file".to_owned();
            return ConfigError::Refused { place, reason };
        }
        ConfigError::UnknownKey { place, nearest: keys::nearest_key(&spot.key()) }
    }

    /// Makes sure that there is an upstream, and that each says what it is called and whether it is the default: the
    /// one that the file calls so, else Docker Hub. Whether that makes exactly one is for the checks.
    pub(super) fn settle_default_upstream(&mut self) {
        let Value::Table(table) = &mut self.top else { return };
        let hub_alone = || Value::Array(vec![Value::Table(Table::new())]);
        let Value::Array(upstreams) = table.entry("upstream").or_insert_with(hub_alone) else { return };
        let said = upstreams.iter().any(|upstream| upstream.get("default").and_then(Value::as_bool) == Some(true));
        let hub = if said { None } else { upstreams.iter().position(is_docker_hub) };
        for (index, upstream) in upstreams.iter_mut().filter_map(Value::as_table_mut).enumerate() {
            upstream.entry("name").or_insert_with(|| Value::from("docker.io"));
            upstream.entry("default").or_insert(Value::Boolean(hub == Some(index)));
        }
    }

    /// Where the default upstream stands in its list.
    pub(super) fn default_upstream(&self) -> usize {
        let upstreams = self.top.get("upstream").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_default = |upstream: &Value| upstream.get("default").and_then(Value::as_bool) == Some(true);
        upstreams.iter().position(is_default).unwrap_or_default()
    }

    /// Puts a setting of the environment in place of the file's.
    ///
    /// # Errors
    /// A list cannot be set that way.
    pub(super) fn override_with(&mut self, setting: &Override, defaults: &Value) -> Result<(), ConfigError> {
        let mut path: Vec<Step> = setting.key.split('.').map(|name| Step::Field(name.to_owned())).collect();
        let mut default_path = path.clone();
        if setting.key.starts_with("upstream.") {
            path.insert(1, Step::Element(self.default_upstream()));
            default_path.insert(1, Step::Element(0));
        }
        // A setting without a default is a text.
        let value = match Spot::at(defaults, &default_path).value {
            Some(Value::Array(_)) => {
                let reason = format!("{} is a list; set it in the configuration file", setting.key);
                return Err(ConfigError::Refused { place: setting.variable.clone(), reason });
            }
            Some(Value::Integer(_)) => setting.text.parse().map(Value::Integer).ok(),
            Some(Value::Boolean(_)) => setting.text.parse().map(Value::Boolean).ok(),
            _ => None,
        };
        put(&mut self.top, &path, value.unwrap_or_else(|| Value::String(setting.text.clone())));
        self.variables.insert(path, setting.variable.clone());
        Ok(())
    }

    /// Gives every upstream other than Docker Hub that has no address the one that its name is.
    pub(super) fn settle_urls(&mut self) {
        let upstreams = self.top.get_mut("upstream").and_then(Value::as_array_mut);
        for upstream in upstreams.into_iter().flatten().filter(|upstream| !is_docker_hub(upstream)) {
            let Value::Table(table) = upstream else { continue };
            if let Some(name) = table.get("name").and_then(Value::as_str) {
                let url = format!("https://{name}");
                table.entry("url").or_insert(Value::String(url));
            }
        }
    }

    /// The document as a configuration, each value of which is valid by itself.
    ///
    /// # Errors
    /// One is not.
    pub(super) fn typed(&self) -> Result<Config, ConfigError> {
        serde_path_to_error::deserialize(self.top.clone()).map_err(|error| {
            let path: Vec<Step> = error.path().iter().filter_map(step).collect();
            let spot = Spot::at(&self.top, &path);
            let said = error.inner().message();
            let reason = match said.strip_prefix("missing field ") {
                Some(field) => format!("needs {} as well", field.replace('`', "")),
                None => {
                    said.split_once(", expected ").map_or(said.to_owned(), |(_, wanted)| format!("must be {wanted}"))
                }
            };
            self.refused(&spot, reason)
        })
    }

    /// The place of `key`, written with the number of an element where there is a list: `upstream.0.url`.
    pub(super) fn spot(&self, key: &str) -> Spot<'_> {
        let step = |part: &str| part.parse().map_or_else(|_| Step::Field(part.to_owned()), Step::Element);
        Spot::at(&self.top, &key.split('.').map(step).collect::<Vec<_>>())
    }

    /// The complaint that what stands at `spot` is not allowed.
    pub(super) fn refused(&self, spot: &Spot<'_>, reason: impl Into<String>) -> ConfigError {
        let place = match self.variables.get(&spot.path) {
            Some(variable) => spot.with_value().replacen(spot.shown(), variable, 1),
            None => self.in_file(&spot.with_value()),
        };
        ConfigError::Refused { place, reason: reason.into() }
    }

    fn in_file(&self, what: &str) -> String {
        self.file.as_ref().map_or_else(|| what.to_owned(), |file| format!("{}: {what}", file.display()))
    }
}

fn read_table(file: &Path) -> Result<Table, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    // The error's own Display shows the line, and with it perhaps a password in the wrong place.
    Table::deserialize(toml::Deserializer::parse(&text).map_err(|error| syntax(file, &text, &error))?)
        .map_err(|error| syntax(file, &text, &error))
}

fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.as_bytes().split_at(start).0;
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    ConfigError::Syntax {
        file: file.to_owned(),
        line: 1 + before.iter().filter(|&&b| b == b'\n').count(),
        column: 1 + String::from_utf8_lossy(&before[line_start..]).chars().count(),
        message: error.message().replace('\n', " "),
    }
}

/// Whether an upstream's section is Docker Hub's: its name says so, or it has none.
fn is_docker_hub(upstream: &Value) -> bool {
    let name = upstream.get("name").map_or(Some("docker.io"), Value::as_str);
    name.and_then(UpstreamName::parse).is_some_and(|name| name.is_docker_hub())
}

/// Puts `value` at the end of `path`, through sections that it makes where there are none.
fn put(at: &mut Value, path: &[Step], value: Value) {
    let Some((step, rest)) = path.split_first() else {
        *at = value;
        return;
    };
    let below = match (step, at) {
        (Step::Field(name), Value::Table(table)) => {
            Some(table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new())))
        }
        (Step::Element(index), Value::Array(elements)) => elements.get_mut(*index),
        _ => None,
    };
    if let Some(below) = below {
        put(below, rest, value);
    }
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    match segment {
        serde_path_to_error::Segment::Seq { index } => Some(Step::Element(*index)),
        serde_path_to_error::Segment::Map { key } => Some(Step::Field(key.clone())),
        serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
    }
}
