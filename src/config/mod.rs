//! The configuration: a TOML file and the environment become plain, validated values.
//!
//! Never opens a socket, and keeps nothing: who wants another configuration loads again. No floor below takes a
//! [`Config`]; the roof turns it into what each of them needs.

mod checks;
mod choices;
mod credentials;
mod document;
mod environment;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keys;
mod quantities;
mod schema;
mod spot;
mod text;
mod values;

#[cfg(test)]
mod tests;

use std::path::Path;

use toml::Value;

use document::Document;
use environment::Environment;

pub use choices::{Anonymous, OnDeleted, Proxy};
pub use credentials::read_token;
pub use error::ConfigError;
pub use keys::{keys, variable};
pub use quantities::{Bandwidth, Count, Every, Size, Timeout, Ttl, Verify};
pub use schema::{Admin, Cache, Config, Credential, Mirror, ProxyVariables, Registry, RepositoryRule, Tls, Upstream};
pub use values::{BaseUrl, FilePath, Listen, Pattern, UpstreamName, UserName};

impl Config {
    /// The configuration in the file at `path` (none: the defaults), overridden by the `LARDER_*` among `environment`;
    /// with the proxies that it names.
    ///
    /// Reads the passwords that it names. Relative paths in it count from the working directory.
    ///
    /// # Errors
    /// Something in it is not allowed; the error is one line that says where, what, and what is.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let environment = Environment::read(environment)?;
        let defaults = as_toml(&Config::default());
        let mut document = Document::read(path)?;
        document.settle_default_upstream();
        for setting in &environment.overrides {
            document.override_with(setting, &defaults)?;
        }
        document.settle_urls();
        let mut config = document.typed()?;
        checks::check(&config, &document)?;
        credentials::read(&mut config, &document, environment.password.as_ref())?;
        config.proxies = environment.proxies;
        Ok(config)
    }

    /// The section `[registry]` as a file that gives it again, if there is one. It has no passwords.
    pub fn registry_as_toml(&self) -> Option<String> {
        let registry = as_toml(self).get("registry")?.clone();
        toml::to_string(&toml::Table::from_iter([("registry".to_owned(), registry)])).ok()
    }

    /// The configuration as a file that gives it again, but for the passwords.
    pub fn to_toml_masked(&self) -> String {
        let accounts = self.upstreams.iter().flat_map(|upstream| {
            upstream
                .accounts()
                .map(|(username, _)| format!("# upstream {}: {username}: password = \"***\"\n", upstream.name))
        });
        let token = self.admin.token.iter().map(|_| "# admin: token = \"***\"\n".to_owned());
        let masked: String = token.chain(accounts).collect();
        let text = toml::to_string(self).unwrap_or_else(|error| format!("# not to be written as TOML: {error}\n"));
        if masked.is_empty() { text } else { format!("{text}\n{masked}") }
    }
}

/// `config` as a document, without the passwords.
fn as_toml(config: &Config) -> Value {
    // Nothing in a configuration is beyond TOML: texts, booleans, small numbers, and sections of them.
    Value::try_from(config).unwrap_or(Value::Table(toml::Table::new()))
}
