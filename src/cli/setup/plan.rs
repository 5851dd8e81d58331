//! What is to be written where, and what a person does then: decided here, shown or done elsewhere.

use std::path::PathBuf;

use crate::cli::mirror_url::MirrorUrl;
use crate::config::UpstreamName;

/// What was asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) mirror: MirrorUrl,
    pub(super) registries: Vec<UpstreamName>,
    /// The certificate authority's certificate, if one was named.
    pub(super) ca: Option<String>,
}

/// How a text gets along with a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The file is ours: it is replaced if it begins with our mark, and otherwise only when told to.
    Ours,
    /// The file is an authority's certificate for a folder that is about our mirror: it is replaced.
    Certificate,
    /// The file is `daemon.json`: the mirror is added to it.
    DaemonJson,
}

/// One file.
#[derive(Debug)]
pub(super) struct Planned {
    /// As the client names it.
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) rule: Rule,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) files: Vec<Planned>,
    /// What to do then, a line each.
    pub(super) then: Vec<String>,
}

impl Planned {
    pub(super) fn new(path: impl Into<PathBuf>, rule: Rule, text: impl Into<String>) -> Planned {
        Planned { path: path.into(), text: text.into(), rule }
    }
}
