//! The `LARDER_*` variables as settings, and those that name proxies. Never reads the process's environment: whoever calls passes it in.

use std::collections::HashMap;

use super::error::ConfigError;
use super::keys;
use super::schema::ProxyVariables;
use crate::secret::Secret;

/// The default upstream's password.
pub(super) const PASSWORD: &str = "LARDER_UPSTREAM_PASSWORD";

/// Variables that are ours and no settings: the command line's, and one that the tests read.
const NOT_SETTINGS: [&str; 4] = ["LARDER_CONFIG", "LARDER_LOG", "LARDER_LOG_FORMAT", "LARDER_SKIP_CLIENTS"];

/// What the environment sets.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Settings in the order of the keys.
    pub overrides: Vec<Override>,
    /// The default upstream's password.
    pub password: Option<Secret>,
    /// The proxies.
    pub proxies: ProxyVariables,
}

/// One setting from the environment.
#[derive(Debug)]
pub(super) struct Override {
    /// The variable.
    pub variable: String,
    /// The key that it sets.
    pub key: &'static str,
    /// What it sets it to.
    pub text: String,
}

impl Environment {
    /// Sorts out `variables`. An empty one counts as not set, which is how a compose file passes on what is not there.
    ///
    /// # Errors
    /// One of them begins like ours and is none.
    pub(super) fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Environment, ConfigError> {
        let mut environment = Environment::default();
        let (ours, others): (Vec<_>, Vec<_>) = variables.partition(|(name, _)| name.starts_with("LARDER_"));
        environment.proxies = proxies(&others.into_iter().collect());
        for (variable, text) in ours {
            let key = keys::keys().find(|key| keys::variable(key).as_ref() == Some(&variable));
            match key {
                _ if text.is_empty() => {}
                Some(key) => environment.overrides.push(Override { variable, key, text }),
                None if variable == PASSWORD => environment.password = Some(Secret::new(text)),
                None if NOT_SETTINGS.contains(&variable.as_str()) || is_service_link(&variable) => {}
                None => {
                    let nearest = keys::nearest_variable(&variable);
                    return Err(ConfigError::UnknownVariable { variable, nearest });
                }
            }
        }
        environment.overrides.sort_by_key(|setting| keys::keys().position(|key| key == setting.key));
        Ok(environment)
    }
}

/// As curl has it: either case, and `ALL_PROXY` where there is none for the scheme.
fn proxies(variables: &HashMap<String, String>) -> ProxyVariables {
    let value = |name: &str| {
        let found = [name.to_owned(), name.to_ascii_lowercase()].into_iter().find_map(|name| variables.get(&name));
        found.filter(|value| !value.is_empty())
    };
    let proxy = |name| value(name).or_else(|| value("ALL_PROXY")).map(|url| Secret::new(url.as_str()));
    let not_for = value("NO_PROXY").cloned().unwrap_or_default();
    ProxyVariables { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), not_for }
}

/// Kubernetes tells every container the services of its namespace in variables named after them; those of a service
/// called `larder` or `larder-admin` begin like ours (`LARDER_SERVICE_HOST`, `LARDER_ADMIN_PORT_5080_TCP`).
fn is_service_link(variable: &str) -> bool {
    variable.ends_with("_PORT")
        || ["_PORT_", "_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|mark| variable.contains(mark))
}
