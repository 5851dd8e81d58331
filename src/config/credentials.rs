//! Passwords and tokens: from a file or the environment, never from the configuration itself. Never sends or shows one.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::document::Document;
use super::environment::PASSWORD;
use super::error::ConfigError;
use super::schema::Config;
use crate::secret::Secret;

/// Longest password file in bytes: whoever names a device or a layer by mistake hears of it.
const LONGEST: u64 = 64 * 1024;

/// Shortest token of the operator's address, in characters: it is all that keeps others out.
const SHORTEST_TOKEN: usize = 16;

/// Gives the operator's address its token, and every upstream its password; that of the environment is for the default one, and goes before a file.
///
/// # Errors
/// A token or password cannot be read, or there is an account without one, or one without an account.
pub(super) fn read(config: &mut Config, document: &Document, variable: Option<&Secret>) -> Result<(), ConfigError> {
    if let Some(file) = &config.admin.token_file {
        let refused = |reason| document.refused(&document.spot("admin.token_file"), reason);
        config.admin.token = Some(read_file(file.as_path()).and_then(token).map_err(refused)?);
    }
    for (index, upstream) in config.upstreams.iter_mut().enumerate() {
        let variable = variable.filter(|_| upstream.default);
        let file = upstream.password_file.as_ref().filter(|_| variable.is_none());
        upstream.password = match (variable, file) {
            (Some(text), _) => {
                let refused = |reason| ConfigError::Refused { place: PASSWORD.to_owned(), reason };
                Some(password(text.expose()).map_err(refused)?)
            }
            (None, Some(file)) => {
                let spot = document.spot(&format!("upstream.{index}.password_file"));
                Some(read_file(file.as_path()).map_err(|reason| document.refused(&spot, reason))?)
            }
            (None, None) => None,
        };
        let spot = document.spot(&format!("upstream.{index}.username"));
        match (&upstream.username, &upstream.password) {
            (Some(_), None) => {
                let reason = format!("has no password; set password_file, or {PASSWORD} for the default upstream");
                return Err(document.refused(&spot, reason));
            }
            (None, Some(_)) => {
                let source = if file.is_some() { "password_file" } else { PASSWORD };
                return Err(document.refused(&spot, format!("missing; {source} gives a password without a user")));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        for (number, credential) in upstream.credentials.iter_mut().enumerate() {
            let spot = document.spot(&format!("upstream.{index}.credentials.{number}.password_file"));
            let password = read_file(credential.password_file.as_path());
            credential.password = Some(password.map_err(|reason| document.refused(&spot, reason))?);
        }
        let mut names = HashSet::new();
        let twice = upstream.accounts().map(|(name, _)| name).find(|name| !names.insert(*name)).cloned();
        if let Some(twice) = twice {
            let spot = document.spot(&format!("upstream.{index}.credentials"));
            return Err(document.refused(&spot, format!("{twice} is there twice; each account once")));
        }
    }
    Ok(())
}

fn read_file(file: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    password(&text)
}

/// Reads the token in the file at `path`, as [`Config::load`] does.
///
/// # Errors
/// It cannot be read, or is no token; the message has no place in it.
pub fn read_token(path: &Path) -> Result<Secret, String> {
    read_file(path).and_then(token)
}

/// A token travels in a header.
fn token(text: Secret) -> Result<Secret, String> {
    let fits = text.expose().len() >= SHORTEST_TOKEN && text.expose().bytes().all(|byte| byte.is_ascii_graphic());
    let advice = "letters, digits and signs without a space, at least 16 of them: `openssl rand -hex 32` makes one";
    if fits { Ok(text) } else { Err(format!("must hold a token: {advice}")) }
}

/// The password in `text`, without the newline that editors put at the end.
fn password(text: &str) -> Result<Secret, String> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r', '\0']) || text.len() as u64 > LONGEST {
        return Err("must hold the password and nothing else, on one line".to_owned());
    }
    Ok(Secret::new(line))
}
