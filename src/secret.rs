//! A text that must not be seen: a password, a token. Never prints, logs or serialises it.

use std::fmt;

/// A secret text. What uses it says so by calling [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into().into_boxed_str())
    }

    /// The text itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_print_shows_nothing() {
        #[derive(Debug)]
        #[allow(dead_code, reason = "it is printed")]
        struct Account {
            password: Secret,
        }
        let account = Account { password: Secret::new("hunter2") };
        assert_eq!(format!("{account:?}"), "Account { password: *** }");
        assert_eq!(account.password.expose(), "hunter2");
    }
}
