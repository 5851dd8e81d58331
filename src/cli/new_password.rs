//! A new password: asked for twice on a terminal, or read from standard input. Never from an argument, which everybody on
//! the machine could see, and never shown.

use std::io::{IsTerminal, Read};

use super::failure::Failure;
use crate::access::htpasswd::MAX_PASSWORD;
use crate::secret::Secret;

/// Longest input that is read, in bytes; a password is shorter.
const LONGEST: u64 = 4096;

/// Asks for a password for `name`.
///
/// # Errors
/// There is none, or it cannot be one.
pub(super) fn ask(name: &str) -> Result<Secret, Failure> {
    let password = if std::io::stdin().is_terminal() { from_terminal(name)? } else { from_input()? };
    check(password.expose()).map_err(Failure::wrong_use)?;
    Ok(password)
}

fn from_terminal(name: &str) -> Result<Secret, Failure> {
    let prompt = |text: String| rpassword::prompt_password(text).map(Secret::new).map_err(Failure::failed);
    let password = prompt(format!("New password for {name}: "))?;
    if password == prompt("Again: ".to_owned())? {
        Ok(password)
    } else {
        Err(Failure::wrong_use("the two passwords differ; nothing was changed"))
    }
}

/// Reads a password from standard input.
///
/// # Errors
/// It cannot be read.
pub(super) fn from_input() -> Result<Secret, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().take(LONGEST + 1).read_to_end(&mut bytes).map_err(Failure::failed)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::wrong_use("the password is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
}

fn check(password: &str) -> Result<(), String> {
    if password.is_empty() {
        return Err("an empty password is none; write it to standard input, or type it when asked".to_owned());
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err("the password must be one line".to_owned());
    }
    if password.len() > MAX_PASSWORD {
        let length = password.len();
        return Err(format!(
            "the password has {length} bytes: bcrypt reads the first {MAX_PASSWORD}, and what follows would not count"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_that_bcrypt_reads_whole() {
        for good in ["x", "correct horse battery", &"x".repeat(72), "päss:wörd"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("", "empty"),
            ("a\nb", "one line"),
            ("a\0b", "one line"),
            (&"x".repeat(73), "bcrypt"),
            (&"é".repeat(37), "74 bytes"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(bad.is_empty() || !error.contains(bad));
        }
    }
}
