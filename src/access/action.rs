//! What can be done with a repository. Words only.

/// What can be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read it.
    Pull,
    /// Add to it, and move its tags.
    Push,
    /// Take from it.
    Delete,
}

impl Action {
    /// As a scope writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
        }
    }

    /// What a scope's word means; `None` for those that mean nothing here.
    pub fn parse(word: &str) -> Option<Action> {
        [Action::Pull, Action::Push, Action::Delete].into_iter().find(|action| action.as_str() == word)
    }
}
