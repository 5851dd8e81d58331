//! `larder user`: the accounts of the private registry. Edits the htpasswd file, and never talks to a running server,
//! which sees the change within a second.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bcrypt::Version;
use clap::{Args, Subcommand};

use super::failure::Failure;
use super::new_password;
use super::output;
use super::process_environment::variables;
use super::replace_file::{directory, replace_file};
use crate::access::htpasswd::{self, Accounts, COST, check_name, with_account, without_account};
use crate::config::Config;

/// A new file is its owner's only.
const MODE: u32 = 0o600;

/// Add, remove or list the accounts of the private registry.
///
/// Edits the file that registry.htpasswd names, whether or not a server runs; one that runs sees the change within a second.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder user add ann --config /etc/larder/larder.toml")]
pub(super) struct User {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add an account, or give an account a new password.
    ///
    /// Asks for the password on a terminal, twice; otherwise reads it from standard input. It takes effect at once: tokens
    /// and logins with the old one end.
    #[command(after_help = "Example: larder user add release-bot --file /etc/larder/htpasswd < password")]
    Add {
        /// The account's name.
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Remove an account.
    #[command(after_help = "Example: larder user rm ann --config /etc/larder/larder.toml")]
    Rm {
        /// The account's name.
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the accounts.
    #[command(after_help = "Example: larder user list --json --config /etc/larder/larder.toml")]
    List {
        /// As JSON: [{"name": …, "cost": …}], where cost is bcrypt's.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// Which file.
#[derive(Debug, Args)]
struct Place {
    /// The configuration file, whose registry.htpasswd is meant.
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
    /// The htpasswd file itself.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    file: Option<PathBuf>,
}

impl User {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Add { name, place } => add(&name, &place.find()?),
            What::Rm { name, place } => remove(&name, &place.find()?),
            What::List { json, place } => list(json, &place.find()?),
        }
    }
}

impl Place {
    fn find(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let config = Config::load(self.config.as_deref(), variables()?.into_iter()).map_err(Failure::wrong_use)?;
        let htpasswd = config.registry.and_then(|registry| registry.htpasswd);
        let advice = "the configuration names no registry.htpasswd; give --config FILE with one, or --file PATH";
        htpasswd.map(|path| path.as_path().to_owned()).ok_or_else(|| Failure::wrong_use(advice))
    }
}

fn add(name: &str, path: &Path) -> Result<(), Failure> {
    check_name(name).map_err(Failure::wrong_use)?;
    let password = new_password::ask(name)?;
    let hash = bcrypt::hash_with_result(password.expose(), COST).map_err(Failure::failed)?;
    let _lock = lock(path)?;
    let old = read(path)?;
    let known = old.as_ref().is_some_and(|text| without_account(text, name).is_some());
    let new = with_account(&old.unwrap_or_default(), name, &hash.format_for_version(Version::TwoY));
    write(path, &new)?;
    let done = if known { "has a new password" } else { "was added" };
    output::write(&format!("{name} {done} in {}\n{}", path.display(), complaint(&new)))
}

fn remove(name: &str, path: &Path) -> Result<(), Failure> {
    let _lock = lock(path)?;
    let old = read(path)?.ok_or_else(|| absent(path))?;
    let new = without_account(&old, name)
        .ok_or_else(|| Failure::failed(format_args!("{}: there is no account {name:?}", path.display())))?;
    write(path, &new)?;
    output::write(&format!("{name} was removed from {}\n{}", path.display(), complaint(&new)))
}

fn list(json: bool, path: &Path) -> Result<(), Failure> {
    let text = read(path)?.ok_or_else(|| absent(path))?;
    let accounts =
        Accounts::parse(&text).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
    let text = if json {
        let list: Vec<_> =
            accounts.iter().map(|(name, hash)| serde_json::json!({ "name": name, "cost": hash.cost() })).collect();
        serde_json::Value::from(list).to_string() + "\n"
    } else {
        accounts.iter().map(|(name, _)| format!("{name}\n")).collect()
    };
    output::write(&text)
}

/// What the server would still say of the file, if anything.
fn complaint(text: &str) -> String {
    Accounts::parse(text).map_or_else(|error| format!("but the server refuses the file: {error}\n"), |_| String::new())
}

/// Two who edit at once would otherwise lose one of the changes. The directory is locked: the file is replaced.
fn lock(path: &Path) -> Result<File, Failure> {
    let directory = directory(path);
    let failed = |error| Failure::failed(format_args!("{}: {error}", directory.display()));
    let lock = File::open(directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) if text.len() <= htpasswd::MAX_FILE => Ok(Some(text)),
        Ok(_) => Err(Failure::failed(format_args!("{}: too large for an htpasswd file", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format_args!("{}: {error}", path.display()))),
    }
}

fn absent(path: &Path) -> Failure {
    Failure::failed(format_args!("{}: there is no such file; `larder user add` makes it", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    replace_file(path, text, MODE).map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))
}
