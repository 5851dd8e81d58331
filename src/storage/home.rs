//! Whose a link or a tag is: a hosted repository's, or a cached one's. Never both: what one holds says nothing about the
//! other, even where their names are alike.

use std::fmt;

use crate::oci::{RepoName, Repository};

/// A repository as the index knows it. Hosted ones come first in its order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Home {
    /// One of ours, which clients push to.
    Hosted(RepoName),
    /// A copy of what an upstream has.
    Cached(Repository),
}

impl From<Repository> for Home {
    fn from(repository: Repository) -> Home {
        Home::Cached(repository)
    }
}

impl From<RepoName> for Home {
    fn from(name: RepoName) -> Home {
        Home::Hosted(name)
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Home::Hosted(name) => write!(f, "hosted {name}"),
            Home::Cached(repository) => repository.fmt(f),
        }
    }
}
