//! The one list of keys: what can be set, by which variable, and whether this version acts on it.
//!
//! Never knows a value. A test holds the list against the shape in `schema.rs`.

/// Whether setting a key changes anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It does.
    Now,
    /// It is accepted, checked, and does nothing in this version; the user is told.
    Later,
}

use Effect::{Later, Now};

/// Every key. When a version learns to act on one, its `Later` becomes `Now`, and nothing else changes.
const KEYS: &[(&str, Effect)] = &[
    ("data_dir", Now),
    ("mirror.listen", Now),
    ("mirror.tls.cert", Now),
    ("mirror.tls.key", Now),
    ("mirror.tls.client_ca", Now),
    ("registry.listen", Now),
    ("registry.tls.cert", Now),
    ("registry.tls.key", Now),
    ("registry.tls.client_ca", Now),
    ("registry.public_url", Now),
    ("registry.htpasswd", Now),
    ("registry.anonymous", Now),
    ("registry.repository.pattern", Now),
    ("registry.repository.immutable_tags", Now),
    ("registry.repository.pull", Now),
    ("registry.repository.push", Now),
    ("registry.repository.delete", Now),
    ("registry.repository.mirror", Now),
    ("admin.listen", Now),
    ("admin.token_file", Now),
    ("cache.max_size", Now),
    ("cache.min_free", Now),
    ("cache.tag_ttl", Now),
    ("cache.revalidate_timeout", Now),
    ("cache.negative_ttl", Now),
    ("cache.complete_indexes", Now),
    ("cache.verify", Now),
    ("cache.scrub", Now),
    ("cache.scrub_rate", Now),
    ("cache.pin", Later),
    ("upstream.name", Now),
    ("upstream.url", Now),
    ("upstream.fallback", Now),
    ("upstream.username", Now),
    ("upstream.password_file", Now),
    ("upstream.credentials.username", Now),
    ("upstream.credentials.password_file", Now),
    ("upstream.allow", Now),
    ("upstream.deny", Now),
    ("upstream.default", Now),
    ("upstream.ca", Now),
    ("upstream.connect_timeout", Now),
    ("upstream.header_timeout", Now),
    ("upstream.stall_timeout", Now),
    ("upstream.max_connections", Now),
    ("upstream.parallel", Now),
    ("upstream.bandwidth", Now),
    ("upstream.proxy", Now),
    ("upstream.private", Now),
    ("upstream.reserve", Now),
    ("upstream.on_deleted", Now),
];

/// Sections that are written in double brackets, once for each.
const REPEATED: &[&str] = &["registry.repository", "upstream", "upstream.credentials"];

/// What stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One setting.
    Value,
    /// `[section]`.
    Section,
    /// `[[section]]`.
    Repeated,
}

/// Every key, in the order of the documentation: `cache.tag_ttl`, `upstream.url`.
pub fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

/// Whether setting `key` changes anything in this version.
pub fn is_in_effect(key: &str) -> bool {
    KEYS.contains(&(key, Now))
}

/// What stands under `key`, if anything may.
pub(super) fn shape(key: &str) -> Option<Shape> {
    if REPEATED.contains(&key) {
        return Some(Shape::Repeated);
    }
    if keys().any(|known| known == key) {
        return Some(Shape::Value);
    }
    keys().any(|known| is_within(known, key)).then_some(Shape::Section)
}

/// The environment variable that overrides `key`; none if it is in a section of which there can be many and no default.
pub fn variable(key: &str) -> Option<String> {
    let one_of_many = ["registry.repository", "upstream.credentials"].iter().any(|section| is_within(key, section));
    (!one_of_many).then(|| format!("LARDER_{}", key.replace('.', "_").to_ascii_uppercase()))
}

/// The key or section that someone who wrote `unknown` most likely meant.
pub(super) fn nearest_key(unknown: &str) -> &'static str {
    let sections = keys().filter_map(|key| key.rsplit_once('.')).map(|(section, _)| section);
    nearest(keys().chain(sections), |candidate| {
        // A slip in the right section is likelier than the right name in the wrong one, and that likelier than both.
        let (section, name) = split(unknown);
        let (candidate_section, candidate_name) = split(candidate);
        let weight = if section == candidate_section { 1.0 } else { 0.9 };
        strsim::jaro_winkler(name, candidate_name) * weight
    })
}

/// The variable that someone who set `unknown` most likely meant.
pub(super) fn nearest_variable(unknown: &str) -> String {
    let key = nearest(keys().filter(|key| variable(key).is_some()), |candidate| {
        variable(candidate).map_or(0.0, |known| strsim::normalized_damerau_levenshtein(&known, unknown))
    });
    variable(key).unwrap_or_default()
}

fn nearest(candidates: impl Iterator<Item = &'static str>, likeness: impl Fn(&str) -> f64) -> &'static str {
    // The first of equals, which is the more usual one.
    candidates.min_by(|a, b| likeness(b).total_cmp(&likeness(a))).unwrap_or_default()
}

fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// The section and the last part.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}
