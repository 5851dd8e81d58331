//! What a token is asked for and what it lists: the scope grammar of the Docker token specification. Pure.
//!
//! `type(class):name:actions`. A name may hold colons (`host:5000/a`), so a scope is read from both ends: the type up to
//! the first colon, the actions from the last.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::action::Action;
use crate::oci::RepoName;

/// Longest scope that is read, in bytes: a name of 255 with a host, and some actions.
const MAX_SCOPE: usize = 1024;
/// Most scopes in one request; what comes after them is left out. Docker asks for two when it mounts.
pub const MAX_SCOPES: usize = 32;

/// One thing that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Actions on one repository, each once.
    Repository(RepoName, Vec<Action>),
    /// The catalogue (`registry:catalog:*`).
    Catalog,
    /// Something that does not exist here: never granted, and no reason to refuse the rest.
    Foreign,
}

/// Why a text is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a scope: write it like repository:team/app:pull,push")]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        if text.len() > MAX_SCOPE {
            return Err(ScopeError);
        }
        let (kind, rest) = text.split_once(':').ok_or(ScopeError)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(ScopeError)?;
        let (kind, class) = match kind.split_once('(') {
            Some((kind, class)) => (kind, Some(class.strip_suffix(')').ok_or(ScopeError)?)),
            None => (kind, None),
        };
        let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if kind.is_empty() || name.is_empty() || !is_word(kind) || !class.is_none_or(is_word) {
            return Err(ScopeError);
        }
        match (kind, name) {
            ("repository", name) => {
                Ok(name.parse().map_or(Scope::Foreign, |name| Scope::Repository(name, every(actions))))
            }
            ("registry", "catalog") if actions.split(',').any(|action| action == "*") => Ok(Scope::Catalog),
            _ => Ok(Scope::Foreign),
        }
    }
}

/// The actions that mean something here, each once. `*` is all of them.
fn every(text: &str) -> Vec<Action> {
    let all = [Action::Pull, Action::Push, Action::Delete];
    all.into_iter().filter(|action| text.split(',').any(|word| word == "*" || word == action.as_str())).collect()
}

/// What a token lists, as it is written into one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(Vec<Grant>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

impl Grants {
    /// What these scopes come to. One without actions is left out.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Grants {
        let grant =
            |kind: &str, name: &str, actions: Vec<String>| Grant { kind: kind.into(), name: name.into(), actions };
        let grants = scopes.into_iter().filter_map(|scope| match scope {
            Scope::Repository(name, actions) if !actions.is_empty() => {
                let actions = actions.iter().map(|action| action.as_str().to_owned()).collect();
                Some(grant("repository", name.as_str(), actions))
            }
            Scope::Catalog => Some(grant("registry", "catalog", vec!["*".to_owned()])),
            Scope::Repository(..) | Scope::Foreign => None,
        });
        Grants(grants.collect())
    }

    /// Whether this is among them.
    pub fn cover(&self, repository: &RepoName, action: Action) -> bool {
        self.0.iter().any(|grant| {
            grant.kind == "repository"
                && grant.name == repository.as_str()
                && grant.actions.iter().any(|listed| listed == action.as_str())
        })
    }

    /// Whether the catalogue is among them.
    pub fn cover_catalog(&self) -> bool {
        self.0.iter().any(|grant| grant.kind == "registry" && grant.name == "catalog")
    }

    /// Whether it lists nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Grant { kind, name, actions }) in self.0.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{kind}:{name}:{}", actions.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Scope, ScopeError> {
        text.parse()
    }

    fn repository(name: &str, actions: &[Action]) -> Result<Scope, ScopeError> {
        Ok(Scope::Repository(name.parse().unwrap(), actions.to_vec()))
    }

    #[test]
    fn a_scope_is_read_from_both_ends() {
        use Action::{Delete, Pull, Push};
        assert_eq!(read("repository:a/b:pull,push"), repository("a/b", &[Pull, Push]));
        assert_eq!(read("repository:a/b:push,pull,push,fly"), repository("a/b", &[Pull, Push]));
        assert_eq!(read("repository:a:*"), repository("a", &[Pull, Push, Delete]));
        assert_eq!(read("repository(plugin):a/b:delete"), repository("a/b", &[Delete]));
        assert_eq!(read("repository():a/b:pull"), repository("a/b", &[Pull]));
        assert_eq!(read("repository:a/b:"), repository("a/b", &[]));
        assert_eq!(read("registry:catalog:*"), Ok(Scope::Catalog));
        // Not names of ours, but scopes all the same.
        for foreign in [
            "repository(plugin):host:5000/a/b:pull,push",
            "repository:../a:pull",
            "registry:other:*",
            "registry:catalog:pull",
            "x:y:z",
        ] {
            assert_eq!(read(foreign), Ok(Scope::Foreign), "{foreign}");
        }
        for bad in [
            "",
            ":",
            "::",
            "repository",
            "repository:a",
            "repository(:a:pull",
            "re po:a:pull",
            "repository(a:b:c",
            ":a:pull",
        ] {
            assert_eq!(read(bad), Err(ScopeError), "{bad}");
        }
        assert_eq!(read(&format!("repository:a:{}", "pull,".repeat(300))), Err(ScopeError));
    }

    #[test]
    fn grants_cover_what_they_list() {
        let grants = Grants::of(
            ["repository:a/b:pull", "repository:c:", "registry:catalog:*", "x:y:z"].map(|scope| scope.parse().unwrap()),
        );
        let (ours, other): (RepoName, RepoName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        assert!(grants.cover(&ours, Action::Pull) && !grants.cover(&ours, Action::Push));
        assert!(!grants.cover(&other, Action::Pull) && grants.cover_catalog());
        assert_eq!(grants.to_string(), "repository:a/b:pull registry:catalog:*");
        assert!(Grants::of([Scope::Foreign]).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(repository|registry|catalog|:|\\(|\\)|,|\\*|a/b|é|pull){0,12}") {
            let _ = read(&text);
        }

        #[test]
        fn what_is_granted_is_what_was_asked(name in "[a-z]{1,5}(/[a-z]{1,5}){0,3}", bits in 1_usize..8) {
            let actions: Vec<&str> = ["pull", "push", "delete"].into_iter().enumerate()
                .filter(|(at, _)| bits >> at & 1 == 1).map(|(_, action)| action).collect();
            let text = format!("repository:{name}:{}", actions.join(","));
            prop_assert_eq!(Grants::of([read(&text).unwrap()]).to_string(), text);
        }
    }
}
