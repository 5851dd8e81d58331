//! Which registry a request is about. Pure: a table made from the configuration, asked once per request.
//!
//! A client's words choose among what the operator configured and can never add to it: an `ns` is a key to look up, not
//! an address to call.

use globset::{Candidate, GlobSet};
use thiserror::Error;

use crate::oci::{Registry, RepoName, Repository};

/// A registry that is mirrored here.
#[derive(Clone, Debug)]
pub struct Mirrored {
    /// What clients call it.
    pub registry: Registry,
    /// Repositories that may be pulled.
    pub allow: GlobSet,
    /// Repositories that may not, although allowed.
    pub deny: GlobSet,
}

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Routes {
    mirrored: Vec<Mirrored>,
    default: usize,
}

/// Where one request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is about.
    pub repository: Repository,
    /// What the client called the registry, if that decided; the answer repeats it.
    pub namespace: Option<String>,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// The `ns` names no registry that is mirrored here.
    #[error("registry {0:?} is not mirrored here: add an [[upstream]] for it, or let the client ask it directly")]
    UnknownNamespace(String),
    /// The operator does not want it to be pulled.
    #[error("{0} may not be pulled through this mirror: the upstream's allow and deny patterns say so")]
    Denied(Repository),
}

/// The one registry with several names.
pub const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// The namespace of its official images.
const OFFICIAL: &str = "library";

/// The one name that a registry goes by here.
pub fn canonical(registry: &str) -> &str {
    let is_hub = DOCKER_HUB_ALIASES.iter().any(|alias| alias.eq_ignore_ascii_case(registry));
    if is_hub { DOCKER_HUB } else { registry }
}

impl Routes {
    /// `default` is an index into `mirrored`: where names without a known prefix or namespace go.
    pub fn new(mirrored: Vec<Mirrored>, default: usize) -> Routes {
        Routes { mirrored, default }
    }

    /// Finds the home of a name. Precedence: a first component that is a registry's name, then `ns`, then the default.
    ///
    /// # Errors
    /// It has none here, or may not be pulled.
    pub fn route(&self, name: &RepoName, ns: Option<&str>) -> Result<Route, RouteError> {
        let (home, name, namespace) = match (self.by_prefix(name), ns) {
            (Some((home, rest)), _) => (home, rest, None),
            (None, Some(ns)) => {
                let home =
                    self.by_name(ns).ok_or_else(|| RouteError::UnknownNamespace(ns.chars().take(80).collect()))?;
                (home, name.clone(), Some(ns.to_owned()))
            }
            (None, None) => (&self.mirrored[self.default], name.clone(), None),
        };
        let repository = Repository { registry: home.registry.clone(), name: official(&home.registry, name) };
        let name = Candidate::new(repository.name.as_str());
        if !home.allow.is_match_candidate(&name) || home.deny.is_match_candidate(&name) {
            return Err(RouteError::Denied(repository));
        }
        Ok(Route { repository, namespace })
    }

    /// Whether names without a known prefix or namespace go to this registry.
    pub fn is_default(&self, registry: &Registry) -> bool {
        self.mirrored[self.default].registry == *registry
    }

    fn by_prefix(&self, name: &RepoName) -> Option<(&Mirrored, RepoName)> {
        let home = self.by_name(name.components().next()?)?;
        Some((home, name.split_first()?.1))
    }

    fn by_name(&self, name: &str) -> Option<&Mirrored> {
        let name = canonical(name);
        self.mirrored.iter().find(|mirrored| mirrored.registry.as_str().eq_ignore_ascii_case(name))
    }
}

/// On Docker Hub, and only there, a single component is an official image. One that would become too long stays as it is.
fn official(registry: &Registry, name: RepoName) -> RepoName {
    if registry.as_str() == DOCKER_HUB && name.components().count() == 1 {
        return name.within(OFFICIAL).unwrap_or(name);
    }
    name
}

#[cfg(test)]
mod tests {
    use globset::{Glob, GlobSetBuilder};

    use super::*;

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            builder.add(Glob::new(pattern).unwrap());
        }
        builder.build().unwrap()
    }

    fn routes() -> Routes {
        let mirrored = |registry: &str, deny: &[&str]| Mirrored {
            registry: registry.parse().unwrap(),
            allow: globs(&["**"]),
            deny: globs(deny),
        };
        Routes::new(vec![mirrored("ghcr.io", &[]), mirrored("docker.io", &["evil/**"])], 1)
    }

    fn route(name: &str, ns: Option<&str>) -> Result<String, RouteError> {
        routes().route(&name.parse().unwrap(), ns).map(|route| route.repository.to_string())
    }

    #[test]
    fn prefix_goes_before_namespace_and_namespace_before_default() {
        assert_eq!(route("ghcr.io/org/app", Some("docker.io")).unwrap(), "ghcr.io/org/app");
        assert_eq!(route("org/app", Some("ghcr.io")).unwrap(), "ghcr.io/org/app");
        assert_eq!(route("org/app", None).unwrap(), "docker.io/org/app");
        assert_eq!(route("quay.io/org/app", None).unwrap(), "docker.io/quay.io/org/app");
    }

    #[test]
    fn docker_hub_has_three_names_and_official_images() {
        for ns in ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"] {
            assert_eq!(route("alpine", Some(ns)).unwrap(), "docker.io/library/alpine");
        }
        assert_eq!(route("docker.io/alpine", None).unwrap(), "docker.io/library/alpine");
        assert_eq!(route("alpine", Some("ghcr.io")).unwrap(), "ghcr.io/alpine");
        assert_eq!(route(&"a".repeat(255), None).unwrap(), format!("docker.io/{}", "a".repeat(255)));
    }

    #[test]
    fn a_namespace_that_is_not_configured_goes_nowhere() {
        for ns in ["", "169.254.169.254", "localhost:22", "docker.io@evil", "docker.io%00", "file://x", "ghcr.io/../"] {
            assert!(matches!(route("org/app", Some(ns)), Err(RouteError::UnknownNamespace(_))), "{ns}");
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        assert!(matches!(route("evil/app", None), Err(RouteError::Denied(_))));
        assert!(matches!(route("docker.io/evil/app", None), Err(RouteError::Denied(_))));
        assert!(route("evil/app", Some("ghcr.io")).is_ok());
    }
}
