//! What settings must be together. What each may be by itself is in its type; never changes anything.

use std::collections::HashMap;

use super::choices::Anonymous;
use super::document::Document;
use super::error::ConfigError;
use super::schema::{Config, Upstream};

/// Checks `config`, which was made from `document`.
///
/// # Errors
/// Two settings do not go together.
pub(super) fn check(config: &Config, document: &Document) -> Result<(), ConfigError> {
    listeners(config, document)?;
    one_default(config, document)?;
    names_are_unique(config, document)?;
    cache(config, document)?;
    registry(config, document)
}

fn listeners(config: &Config, document: &Document) -> Result<(), ConfigError> {
    let registry = config.registry.as_ref().map(|registry| ("registry.listen", registry.listen));
    let all = [Some(("mirror.listen", config.mirror.listen)), registry, Some(("admin.listen", config.admin.listen))];
    let all: Vec<_> = all.into_iter().flatten().collect();
    for (index, (key, listen)) in all.iter().enumerate() {
        if let Some((other, taken)) = all[..index].iter().find(|(_, before)| before.collides_with(*listen)) {
            let reason = format!("{listen} is taken by {other} ({taken}); give each its own port");
            return Err(document.refused(&document.spot(key), reason));
        }
    }
    Ok(())
}

fn one_default(config: &Config, document: &Document) -> Result<(), ConfigError> {
    let defaults: Vec<_> = config.upstreams.iter().filter(|upstream| upstream.default).collect();
    let reason = match defaults.as_slice() {
        [_one] => return Ok(()),
        [] if config.upstreams.is_empty() => "is empty; leave it out to mirror docker.io".to_owned(),
        [] => format!(
            "none is the default; set default = true in the one that names without a registry go to ({}), or list \
             docker.io as well",
            names(&config.upstreams.iter().collect::<Vec<_>>())
        ),
        many => format!("only one can be the default, but {} are", names(many)),
    };
    Err(document.refused(&document.spot("upstream"), reason))
}

fn names(upstreams: &[&Upstream]) -> String {
    upstreams.iter().map(|upstream| upstream.name.to_string()).collect::<Vec<_>>().join(", ")
}

fn names_are_unique(config: &Config, document: &Document) -> Result<(), ConfigError> {
    let mut seen = HashMap::new();
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if seen.insert(&upstream.name, index).is_some() {
            let reason = format!("there is another upstream of this name ({})", upstream.name);
            return Err(document.refused(&document.spot(&format!("upstream.{index}.name")), reason));
        }
    }
    Ok(())
}

fn cache(config: &Config, document: &Document) -> Result<(), ConfigError> {
    if config.cache.max_size.bytes() == 0 {
        return Err(document.refused(&document.spot("cache.max_size"), "a cache needs room; write it like 100GiB"));
    }
    Ok(())
}

fn registry(config: &Config, document: &Document) -> Result<(), ConfigError> {
    match &config.registry {
        Some(registry) if registry.htpasswd.is_none() && registry.anonymous == Anonymous::None => {
            let reason = "nobody could use it: set htpasswd, or anonymous = \"pull\" (or \"push\") on purpose";
            Err(document.refused(&document.spot("registry"), reason))
        }
        _ => Ok(()),
    }
}
