//! The one list of keys: what can be set, and by which variable.
//!
//! Never knows a value. A test holds the list against the shape in `schema.rs`.

/// Every key.
const KEYS: &[&str] = &[
    "data_dir",
    "mirror.listen",
    "mirror.tls.cert",
    "mirror.tls.key",
    "mirror.tls.client_ca",
    "registry.listen",
    "registry.tls.cert",
    "registry.tls.key",
    "registry.tls.client_ca",
    "registry.public_url",
    "registry.htpasswd",
    "registry.anonymous",
    "registry.repository.pattern",
    "registry.repository.immutable_tags",
    "registry.repository.pull",
    "registry.repository.push",
    "registry.repository.delete",
    "registry.repository.mirror",
    "admin.listen",
    "admin.token_file",
    "cache.max_size",
    "cache.min_free",
    "cache.tag_ttl",
    "cache.revalidate_timeout",
    "cache.negative_ttl",
    "cache.complete_indexes",
    "cache.verify",
    "cache.scrub",
    "cache.scrub_rate",
    "cache.pin",
    "upstream.name",
    "upstream.url",
    "upstream.fallback",
    "upstream.username",
    "upstream.password_file",
    "upstream.credentials.username",
    "upstream.credentials.password_file",
    "upstream.allow",
    "upstream.deny",
    "upstream.default",
    "upstream.ca",
    "upstream.connect_timeout",
    "upstream.header_timeout",
    "upstream.stall_timeout",
    "upstream.max_connections",
    "upstream.parallel",
    "upstream.bandwidth",
    "upstream.proxy",
    "upstream.private",
    "upstream.reserve",
    "upstream.on_deleted",
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
    KEYS.iter().copied()
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
