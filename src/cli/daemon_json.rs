//! The mirrors of a `daemon.json`, and one more in one that has a life of its own. Order, unknown keys and the text of every other value
//! stay as they are. Never opens the file.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error as ThisError;

const KEY: &str = "registry-mirrors";

/// Why a file is left as it is.
#[derive(Debug, ThisError)]
pub(super) enum MergeError {
    /// Docker itself would not take it, or takes what we cannot be sure of.
    #[error("it is not a JSON object as Docker reads it: {0}")]
    NotAnObject(serde_json::Error),
    /// The key is there and holds something else.
    #[error("its \"registry-mirrors\" is not a list of addresses: {0}")]
    NotAList(serde_json::Error),
}

/// `old` with `url` as its first mirror; `fresh` where `old` is empty. None: it is there already.
///
/// # Errors
/// `old` is not what Docker reads.
pub(super) fn with_mirror(old: &str, url: &str, fresh: &str) -> Result<Option<String>, MergeError> {
    if old.trim().is_empty() {
        return Ok(Some(fresh.to_owned()));
    }
    let Members(mut members) = serde_json::from_str(old).map_err(MergeError::NotAnObject)?;
    let place = members.iter().position(|(name, _)| name == KEY);
    let mut mirrors: Vec<String> = match place {
        Some(place) => serde_json::from_str(members[place].1.get()).map_err(MergeError::NotAList)?,
        None => Vec::new(),
    };
    if mirrors.iter().any(|known| known.trim_end_matches('/').eq_ignore_ascii_case(url)) {
        return Ok(None);
    }
    // First, because Docker asks them in this order, and whoever runs this wants this one.
    mirrors.insert(0, url.to_owned());
    let list = serde_json::value::to_raw_value(&mirrors).map_err(MergeError::NotAList)?;
    match place {
        Some(place) => members[place].1 = list,
        None => members.push((KEY.to_owned(), list)),
    }
    Ok(Some(written(&members, indentation(old))))
}

/// The mirrors that `text` names, in their order.
///
/// # Errors
/// `text` is not what Docker reads.
pub(super) fn mirrors(text: &str) -> Result<Vec<String>, MergeError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let Members(members) = serde_json::from_str(text).map_err(MergeError::NotAnObject)?;
    let list = members.iter().find(|(name, _)| name == KEY);
    list.map_or(Ok(Vec::new()), |(_, list)| serde_json::from_str(list.get()).map_err(MergeError::NotAList))
}

/// An object's members in their order, each value as it was written.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format_args!("\"{name}\" stands there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn written(members: &[(String, Box<RawValue>)], indentation: &str) -> String {
    let lines: Vec<String> = members
        .iter()
        // A string's Display as JSON: serde_json escapes it as it must.
        .map(|(name, value)| format!("{indentation}{}: {value}", serde_json::Value::from(name.as_str())))
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// What stands before the first name that begins a line.
fn indentation(text: &str) -> &str {
    let line = text.lines().find(|line| line.trim_start().starts_with('"'));
    line.map_or("  ", |line| &line[..line.len() - line.trim_start().len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://mirror.lan:5000";
    const FRESH: &str = "{ \"registry-mirrors\": [\"http://mirror.lan:5000\"] }\n";

    fn merged(old: &str) -> String {
        with_mirror(old, URL, FRESH).unwrap().unwrap()
    }

    #[test]
    fn order_unknown_keys_and_the_text_of_values_stay() {
        let old = "{\n    \"zeta\": 1.50e1,\n    \"log-opts\": {\n        \"max-size\": \"10m\"\n    },\n    \"alpha\": \"\\u00e9\"\n}";
        let new = "{\n    \"zeta\": 1.50e1,\n    \"log-opts\": {\n        \"max-size\": \"10m\"\n    },\n    \"alpha\": \"\\u00e9\",\n    \
                   \"registry-mirrors\": [\"http://mirror.lan:5000\"]\n}\n";
        assert_eq!(merged(old), new);
    }

    #[test]
    fn a_mirror_is_added_before_the_others_and_once() {
        let new = merged("{\"debug\": true, \"registry-mirrors\": [\"https://old.lan\"], \"x\": []}");
        let value: serde_json::Value = serde_json::from_str(&new).unwrap();
        assert_eq!(value["registry-mirrors"], serde_json::json!([URL, "https://old.lan"]));
        assert_eq!((&value["debug"], &value["x"]), (&true.into(), &serde_json::json!([])));
        assert_eq!(mirrors(&new).unwrap(), [URL, "https://old.lan"]);
        assert!(with_mirror(&new, URL, FRESH).unwrap().is_none());
        assert!(with_mirror("{\"registry-mirrors\": [\"http://Mirror.lan:5000/\"]}", URL, FRESH).unwrap().is_none());
    }

    #[test]
    fn an_empty_file_becomes_the_example() {
        assert_eq!((merged("").as_str(), merged(" \n").as_str()), (FRESH, FRESH));
        let value: serde_json::Value = serde_json::from_str(&merged("{}")).unwrap();
        assert_eq!(value, serde_json::json!({ "registry-mirrors": [URL] }));
    }

    #[test]
    fn what_docker_would_not_read_is_refused() {
        let cases = [
            "[]",
            "{\"a\": 1,}",
            "// a comment\n{}",
            "{} {}",
            "{\"registry-mirrors\": \"http://a\"}",
            "{\"registry-mirrors\": [1]}",
            "{\"a\": 1, \"a\": 2}",
        ];
        for old in cases {
            assert!(with_mirror(old, URL, FRESH).is_err() && mirrors(old).is_err(), "{old}");
        }
    }
}
