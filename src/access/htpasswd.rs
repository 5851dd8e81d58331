//! The file of accounts, as `htpasswd -B` writes it: `name:hash` lines, comments, empty lines. Pure: text in, text out.
//!
//! Only bcrypt is taken. A file with anything else in it is refused whole, with a message that names the line and never
//! shows a hash: half of a file would be a policy that nobody wrote.

use std::collections::BTreeMap;

use bcrypt::HashParts;
use thiserror::Error;

/// bcrypt reads so many bytes of a password; what follows them would not count.
pub const MAX_PASSWORD: usize = 72;
/// Longest user name in bytes.
pub const MAX_NAME: usize = 255;
/// Cost of a new hash: a quarter of a second or so.
pub const COST: u32 = 12;
/// bcrypt knows no lower one.
const MIN_COST: u32 = 4;
/// Highest cost that is taken. Each step doubles the time, and one login must not hold up the others for a minute.
pub const MAX_COST: u32 = 14;
/// Largest file that is read, in bytes: some ten thousand accounts.
pub const MAX_FILE: usize = 1 << 20;
/// What the hashes of bcrypt begin with that we take. `$2x$` is a broken implementation's.
const PREFIXES: [&str; 3] = ["$2y$", "$2b$", "$2a$"];

/// Why a file of accounts is refused. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HtpasswdError {
    /// A line that is no account.
    #[error("line {line}: not an account; write name:hash, or let `larder user add` write it")]
    Line {
        /// Which.
        line: usize,
    },
    /// A name that is none.
    #[error("line {line}: {problem}")]
    Name {
        /// Which.
        line: usize,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// A name for the second time.
    #[error("line {line}: there is another account {name:?}; remove one of them")]
    Twice {
        /// Which.
        line: usize,
        /// Whose.
        name: String,
    },
    /// A hash of another kind.
    #[error(
        "line {line}: the password of {name:?} is not hashed with bcrypt; set it again with `larder user add {name}`, or `htpasswd -B`"
    )]
    NotBcrypt {
        /// Which.
        line: usize,
        /// Whose.
        name: String,
    },
    /// A hash that would take too long.
    #[error(
        "line {line}: the hash of {name:?} has cost {cost}; {MAX_COST} is the highest that is taken, lest one login hold up the others"
    )]
    Cost {
        /// Which.
        line: usize,
        /// Whose.
        name: String,
        /// Its cost.
        cost: u32,
    },
    /// More than is read.
    #[error("is larger than {MAX_FILE} bytes")]
    TooLarge,
}

/// Why a text is no user's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameProblem {
    /// Nothing.
    #[error("a user's name cannot be empty")]
    Empty,
    /// Too much.
    #[error("a user's name has at most {MAX_NAME} bytes")]
    Long,
    /// Basic authentication ends the name at the first colon.
    #[error("a user's name cannot have a colon or a control character in it")]
    Character,
    /// It would be taken for a comment, or for everybody.
    #[error("a user cannot be called *, or begin with # or a space, or end with a space")]
    Reserved,
}

/// Whether `name` can be an account's.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameProblem> {
    match name {
        "" => Err(NameProblem::Empty),
        _ if name.len() > MAX_NAME => Err(NameProblem::Long),
        _ if name.contains(|c: char| c == ':' || c.is_control()) => Err(NameProblem::Character),
        _ if name == "*" || name.starts_with('#') || name.trim() != name => Err(NameProblem::Reserved),
        _ => Ok(()),
    }
}

/// A bcrypt hash that we take. Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: Box<str>,
    cost: u32,
}

impl PasswordHash {
    fn parse(text: &str) -> Option<PasswordHash> {
        let known = PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        let cost = text.parse().ok().filter(|_| known).map(|parts: HashParts| parts.get_cost())?;
        (MIN_COST..=31).contains(&cost).then(|| PasswordHash { text: text.into(), cost })
    }

    /// The hash as bcrypt wants it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Two to the power of this is what checking a password takes.
    pub fn cost(&self) -> u32 {
        self.cost
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bcrypt, cost {}", self.cost)
    }
}

/// The accounts of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    by_name: BTreeMap<Box<str>, PasswordHash>,
}

impl Accounts {
    /// Reads a file's content.
    ///
    /// # Errors
    /// A line is no account with bcrypt.
    pub fn parse(text: &str) -> Result<Accounts, HtpasswdError> {
        if text.len() > MAX_FILE {
            return Err(HtpasswdError::TooLarge);
        }
        let mut by_name = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let (line_number, line) = (number + 1, line.trim_end_matches('\r'));
            let Some((name, hash)) = account(line).map_err(|()| HtpasswdError::Line { line: line_number })? else {
                continue;
            };
            check_name(name).map_err(|problem| HtpasswdError::Name { line: line_number, problem })?;
            let name_text = || name.to_owned();
            let hash = PasswordHash::parse(hash)
                .ok_or_else(|| HtpasswdError::NotBcrypt { line: line_number, name: name_text() })?;
            if hash.cost > MAX_COST {
                return Err(HtpasswdError::Cost { line: line_number, name: name_text(), cost: hash.cost });
            }
            if by_name.insert(name.into(), hash).is_some() {
                return Err(HtpasswdError::Twice { line: line_number, name: name_text() });
            }
        }
        Ok(Accounts { by_name })
    }

    /// An account's hash.
    pub fn get(&self, name: &str) -> Option<&PasswordHash> {
        self.by_name.get(name)
    }

    /// The names and hashes, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PasswordHash)> {
        self.by_name.iter().map(|(name, hash)| (&**name, hash))
    }

    /// The highest cost among them.
    pub fn highest_cost(&self) -> u32 {
        self.by_name.values().map(PasswordHash::cost).max().unwrap_or(COST)
    }
}

/// Name and hash of a line; nothing of an empty line or a comment.
fn account(line: &str) -> Result<Option<(&str, &str)>, ()> {
    let bare = line.trim();
    if bare.is_empty() || bare.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = line.split_once(':').ok_or(())?;
    // `htpasswd` allows more fields after the hash, and nobody reads them.
    Ok(Some((name, rest.split(':').next().unwrap_or_default().trim_end())))
}

/// `text` with the account in it, at its old place if it has one. Everything else stays as it is.
pub fn with_account(text: &str, name: &str, hash: &str) -> String {
    let entry = format!("{name}:{hash}");
    let mut replaced = false;
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if !is_of(line, name) {
            lines.push(line);
        } else if !replaced {
            replaced = true;
            lines.push(&entry);
        }
    }
    if !replaced {
        lines.push(&entry);
    }
    lines.join("\n") + "\n"
}

/// `text` without the account, or nothing if it is not in there. Everything else stays as it is.
pub fn without_account(text: &str, name: &str) -> Option<String> {
    let kept: Vec<&str> = text.lines().filter(|line| !is_of(line, name)).collect();
    (kept.len() < text.lines().count()).then(|| kept.iter().map(|line| format!("{line}\n")).collect())
}

fn is_of(line: &str, name: &str) -> bool {
    matches!(account(line), Ok(Some((found, _))) if found == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `htpasswd -nbBC 4 ann secret` printed.
    const REST: &str = "05$1cSSbWDPqgHlUgS8HUWC7.5dZcEGGWGBEFYyfDTPAMhZpxrxo6mPK";

    fn hash(prefix: &str) -> String {
        format!("{prefix}{REST}")
    }

    #[test]
    fn the_three_spellings_of_bcrypt_are_accounts() {
        let text = format!(
            "# people\n\nann:{}\r\nbob:{}:a field\n  # more\nrelease bot:{}",
            hash("$2y$"),
            hash("$2b$"),
            hash("$2a$")
        );
        let accounts = Accounts::parse(&text).unwrap();
        assert_eq!(accounts.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["ann", "bob", "release bot"]);
        assert_eq!(accounts.get("ann").unwrap().cost(), 5);
        assert_eq!(accounts.get("bob").unwrap().expose(), hash("$2b$"));
        assert_eq!(accounts.highest_cost(), 5);
        assert!(!format!("{accounts:?}").contains("1cSSb"));
        assert_eq!(Accounts::parse("").unwrap(), Accounts::default());
    }

    #[test]
    fn what_is_not_bcrypt_is_refused_by_name_and_never_shown() {
        for hash in [
            "{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=",
            "$apr1$salt$QxZCyFYq0KkoXcBbTo6xD0",
            "$5$rounds=5000$salt$aaaa",
            "$6$salt$aaaa",
            "$argon2id$v=19$m=16,t=2,p=1$c2FsdA$aaaa",
            "plainsecret",
            "",
            "rl3uQZQnVyHJc",
            &hash("$2x$"),
            &hash("$2y$")[..59],
            &format!("{}a", hash("$2y$")),
            "$2y$03$1cSSbWDPqgHlUgS8HUWC7.5dZcEGGWGBEFYyfDTPAMhZpxrxo6mPK",
            "$2y$99$1cSSbWDPqgHlUgS8HUWC7.5dZcEGGWGBEFYyfDTPAMhZpxrxo6mPK",
        ] {
            let error = Accounts::parse(&format!("ok:{}\nann:{hash}\n", super::tests::hash("$2y$"))).unwrap_err();
            assert_eq!(error, HtpasswdError::NotBcrypt { line: 2, name: "ann".into() }, "{hash}");
            assert!(hash.is_empty() || !error.to_string().contains(hash), "{error}");
        }
    }

    #[test]
    fn a_bad_line_says_which() {
        let good = hash("$2y$");
        let of = |text: &str| Accounts::parse(text).unwrap_err();
        assert_eq!(of("\nnonsense\n"), HtpasswdError::Line { line: 2 });
        assert_eq!(of(&format!("ann:{good}\nann:{good}")), HtpasswdError::Twice { line: 2, name: "ann".into() });
        for (name, problem) in [
            ("", NameProblem::Empty),
            ("*", NameProblem::Reserved),
            ("a\tb", NameProblem::Character),
            ("a ", NameProblem::Reserved),
        ] {
            assert_eq!(of(&format!("{name}:{good}")), HtpasswdError::Name { line: 1, problem }, "{name:?}");
        }
        let slow = good.replace("$05$", "$15$");
        assert_eq!(of(&format!("ann:{slow}")), HtpasswdError::Cost { line: 1, name: "ann".into(), cost: 15 });
        assert_eq!(of(&"#".repeat(MAX_FILE + 1)), HtpasswdError::TooLarge);
    }

    #[test]
    fn an_edit_leaves_everything_else_as_it_is() {
        let text = "# head\nann:1\n\nbob:2\n# tail";
        assert_eq!(with_account(text, "ann", "9"), "# head\nann:9\n\nbob:2\n# tail\n");
        assert_eq!(with_account(text, "eve", "9"), "# head\nann:1\n\nbob:2\n# tail\neve:9\n");
        assert_eq!(with_account("", "eve", "9"), "eve:9\n");
        assert_eq!(without_account(text, "bob").unwrap(), "# head\nann:1\n\n# tail\n");
        assert_eq!(without_account(text, "bo"), None);
        assert_eq!(without_account("ann:1", "ann").unwrap(), "");
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(text in "(ann|:|\\$2y\\$|05|#|\n|\r|é|[./A-Za-z0-9]{53}){0,20}") {
            let _ = Accounts::parse(&text);
        }

        #[test]
        fn an_account_that_is_added_is_there_and_one_that_is_removed_is_not(
            text in "((ann|bob|eve):[a-z]{0,3}\n|# [a-z]{0,3}\n|\n){0,6}", name in "ann|bob|zoe",
        ) {
            let added = with_account(&text, &name, "new");
            prop_assert_eq!(added.lines().filter(|line| line.starts_with(&format!("{name}:"))).count(), 1);
            let removed = without_account(&added, &name).unwrap();
            let is_other = |line: &&str| !line.starts_with(&format!("{name}:"));
            prop_assert!(removed.lines().eq(text.lines().filter(is_other)));
        }
    }
}
