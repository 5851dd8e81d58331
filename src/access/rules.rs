//! Which names are ours, and who may do what with them. Pure: a table made from the configuration.
//!
//! The first rule whose pattern covers a name speaks for it, alone: what a later one gives is not added. So the order in
//! the file is the order of precedence, and a special case is written above the general one. A name that no rule covers
//! is not hosted here, and nobody may do anything with it.

use globset::GlobSet;

use super::action::Action;
use super::identity::{Identity, Reach};
use crate::oci::{RepoName, Tag};

/// What `*` in a rule gives to someone without an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nothing.
    None,
    /// Pull.
    Pull,
    /// Pull and push, and delete where a rule's `delete` says `*`.
    Push,
}

impl Anonymous {
    fn gives(self, action: Action) -> bool {
        match self {
            Anonymous::None => false,
            Anonymous::Pull => action == Action::Pull,
            Anonymous::Push => true,
        }
    }
}

/// To whom a rule gives an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// `*`: any account, and someone without one as far as [`Anonymous`] goes.
    Anyone,
    /// This account.
    Account(Box<str>),
}

impl Grantee {
    /// As the configuration writes it.
    pub fn parse(text: &str) -> Grantee {
        if text == "*" { Grantee::Anyone } else { Grantee::Account(text.into()) }
    }
}

/// One `[[registry.repository]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The pattern as it was written, for messages.
    pub pattern: String,
    /// The names that it covers.
    pub names: GlobSet,
    /// Tags that keep their meaning once pushed.
    pub immutable_tags: GlobSet,
    /// Who may pull.
    pub pull: Vec<Grantee>,
    /// Who may push.
    pub push: Vec<Grantee>,
    /// Who may delete.
    pub delete: Vec<Grantee>,
    /// Whether the mirror's address shows them, too.
    pub mirror: bool,
}

impl Rule {
    fn grantees(&self, action: Action) -> &[Grantee] {
        match action {
            Action::Pull => &self.pull,
            Action::Push => &self.push,
            Action::Delete => &self.delete,
        }
    }
}

/// All rules, in the order of the configuration.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    patterns: Vec<String>,
    anonymous: Anonymous,
}

impl Rules {
    /// The rules, in the order in which they are asked.
    pub fn new(rules: Vec<Rule>, anonymous: Anonymous) -> Rules {
        let patterns = rules.iter().map(|rule| rule.pattern.clone()).collect();
        Rules { rules, patterns, anonymous }
    }

    /// Whether the rules give an account (none: someone without one) this action.
    pub fn give(&self, account: Option<&str>, repository: &RepoName, action: Action) -> bool {
        self.rule(repository).is_some_and(|rule| {
            rule.grantees(action).iter().any(|grantee| match (grantee, account) {
                (Grantee::Anyone, Some(_)) => true,
                (Grantee::Anyone, None) => self.anonymous.gives(action),
                (Grantee::Account(name), Some(account)) => &**name == account,
                (Grantee::Account(_), None) => false,
            })
        })
    }

    /// Whether someone may: the rules say so, and so does the token, if one was shown.
    pub fn may(&self, who: &Identity, repository: &RepoName, action: Action) -> bool {
        let reaches = match who.reach() {
            Reach::Everything => true,
            Reach::Granted(grants) => grants.cover(repository, action),
        };
        reaches && self.give(who.name(), repository, action)
    }

    /// What someone without an account may get at most.
    pub fn anonymous(&self) -> Anonymous {
        self.anonymous
    }

    /// Whether a name is ours.
    pub fn is_hosted(&self, repository: &RepoName) -> bool {
        self.rule(repository).is_some()
    }

    /// Whether the mirror's address shows it, too.
    pub fn is_mirrored(&self, repository: &RepoName) -> bool {
        self.rule(repository).is_some_and(|rule| rule.mirror)
    }

    /// Whether a tag keeps its meaning once pushed.
    pub fn is_immutable(&self, repository: &RepoName, tag: &Tag) -> bool {
        self.rule(repository).is_some_and(|rule| rule.immutable_tags.is_match(tag.as_str()))
    }

    /// The patterns as they were written, for messages.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Accounts that may push where they may not pull: clients look before they push.
    pub fn blind_pushers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rules.iter().flat_map(|rule| {
            let sees = |name: &str| rule.pull.iter().any(|grantee| grantee.covers(name));
            rule.push.iter().filter_map(move |grantee| match grantee {
                Grantee::Account(name) if !sees(name) => Some((rule.pattern.as_str(), &**name)),
                _ => None,
            })
        })
    }

    fn rule(&self, repository: &RepoName) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.names.is_match(repository.as_str()))
    }
}

impl Grantee {
    fn covers(&self, account: &str) -> bool {
        match self {
            Grantee::Anyone => true,
            Grantee::Account(name) => &**name == account,
        }
    }
}

#[cfg(test)]
mod tests {
    use globset::{GlobBuilder, GlobSetBuilder};

    use super::super::scope::Grants;
    use super::*;

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            builder.add(GlobBuilder::new(pattern).literal_separator(true).build().unwrap());
        }
        builder.build().unwrap()
    }

    fn rule(pattern: &str, pull: &[&str], push: &[&str], delete: &[&str]) -> Rule {
        let grantees = |names: &[&str]| names.iter().map(|name| Grantee::parse(name)).collect();
        Rule {
            pattern: pattern.to_owned(),
            names: globs(&[pattern]),
            immutable_tags: globs(&["v*"]),
            pull: grantees(pull),
            push: grantees(push),
            delete: grantees(delete),
            mirror: pattern == "golden/**",
        }
    }

    fn rules(anonymous: Anonymous) -> Rules {
        Rules::new(
            vec![
                rule("team/secret", &["ann"], &["ann"], &[]),
                rule("team/*", &["*"], &["ann", "bob"], &["ann"]),
                rule("golden/**", &["*"], &["bot"], &[]),
                rule("open/**", &["*"], &["*"], &["*"]),
                rule("**/locked", &[], &[], &[]),
            ],
            anonymous,
        )
    }

    /// The same policy, written down as what each may do where: an oracle that shares no code with the rules.
    fn allowed(anonymous: Anonymous, who: &str, name: &str) -> &'static str {
        match (name, who, anonymous) {
            ("team/secret", "ann", _) => "pull push",
            ("team/secret", ..) => "",
            ("team/app", "ann", _) => "pull push delete",
            ("team/app", "bob", _) => "pull push",
            ("team/app", "", Anonymous::None) => "",
            ("team/app", ..) => "pull",
            ("golden/a/b", "bot", _) => "pull push",
            ("golden/a/b", "", Anonymous::None) => "",
            ("golden/a/b", ..) => "pull",
            ("open/x", "", Anonymous::None) => "",
            ("open/x", "", Anonymous::Pull) => "pull",
            ("open/x", ..) => "pull push delete",
            // Under two patterns: the first one speaks.
            ("open/locked", "", Anonymous::None) => "",
            ("open/locked", "", Anonymous::Pull) => "pull",
            ("open/locked", ..) => "pull push delete",
            _ => "",
        }
    }

    const NAMES: [&str; 9] = [
        "team/secret",
        "team/app",
        "team/app/deep",
        "golden/a/b",
        "open/x",
        "open/locked",
        "a/locked",
        "elsewhere",
        "golden",
    ];
    const ACTIONS: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];

    #[test]
    fn the_rules_are_what_the_policy_says_for_everyone_everywhere() {
        let mut asked = 0;
        for anonymous in [Anonymous::None, Anonymous::Pull, Anonymous::Push] {
            for who in ["", "ann", "bob", "bot", "eve", "*", "Ann"] {
                let identity =
                    if who.is_empty() { Identity::anonymous() } else { Identity::account_with_password(who) };
                for name in NAMES {
                    for action in ACTIONS {
                        let expected = allowed(anonymous, who, name).split(' ').any(|word| word == action.as_str());
                        let got = rules(anonymous).may(&identity, &name.parse().unwrap(), action);
                        assert_eq!(got, expected, "{anonymous:?} {who:?} {name} {action:?}");
                        asked += 1;
                    }
                }
            }
        }
        assert_eq!(asked, 3 * 7 * 9 * 3);
    }

    #[test]
    fn a_token_gives_nothing_that_the_rules_do_not_and_takes_what_it_does_not_list() {
        let rules = rules(Anonymous::Push);
        for listed in ["", "pull", "push", "pull push", "pull push delete"] {
            let scope = format!("repository:team/app:{}", listed.replace(' ', ","));
            let grants = Grants::of([scope.parse().unwrap()]);
            for who in ["", "ann", "bob", "eve"] {
                let account = (!who.is_empty()).then_some(who);
                let identity = Identity::bearer(account, grants.clone());
                for name in NAMES {
                    for action in ACTIONS {
                        let word = |words: &str| words.split(' ').any(|word| word == action.as_str());
                        let expected = name == "team/app" && word(listed) && word(allowed(Anonymous::Push, who, name));
                        let got = rules.may(&identity, &name.parse().unwrap(), action);
                        assert_eq!(got, expected, "{listed} {who:?} {name} {action:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_is_ours_when_any_pattern_covers_it() {
        let rules = rules(Anonymous::None);
        let is = |name: &str| {
            let name: RepoName = name.parse().unwrap();
            (rules.is_hosted(&name), rules.is_mirrored(&name), rules.is_immutable(&name, &"v1".parse().unwrap()))
        };
        assert_eq!(is("golden/a/b"), (true, true, true));
        assert_eq!(is("team/app"), (true, false, true));
        assert_eq!(is("a/locked"), (true, false, true));
        for not_ours in ["golden", "team/app/deep", "elsewhere", "goldenx/a"] {
            assert_eq!(is(not_ours), (false, false, false), "{not_ours}");
        }
        assert!(!rules.is_immutable(&"golden/a".parse().unwrap(), &"latest".parse().unwrap()));
        assert_eq!(rules.patterns(), ["team/secret", "team/*", "golden/**", "open/**", "**/locked"]);
    }

    #[test]
    fn who_may_push_and_not_look_is_found() {
        let rules = Rules::new(vec![rule("a/**", &["ann"], &["ann", "bot"], &[])], Anonymous::None);
        assert_eq!(rules.blind_pushers().collect::<Vec<_>>(), [("a/**", "bot")]);
        assert_eq!(super::tests::rules(Anonymous::None).blind_pushers().count(), 0);
    }
}
