//! `larder user`, through the built program: the file it edits, what it refuses, and that the server's room reads it.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder::access::{Access, AccessError, Anonymous, Settings, TokenKey};
use larder::clock::Clock;
use tempfile::TempDir;

use crate::support::binary::{larder, tries_other_programs};

struct Answer {
    code: i32,
    out: String,
    err: String,
}

/// Runs `larder user …` with `input` on its standard input.
fn user(arguments: &[&str], input: &str) -> Answer {
    let mut command = larder();
    command.arg("user").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who refuses the arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    let file = home.path().join("htpasswd");
    (home, file)
}

fn add(file: &Path, name: &str, password: &str) -> Answer {
    user(&["add", name, "--file", file.to_str().unwrap()], password)
}

fn names(file: &Path) -> Vec<String> {
    let listed = user(&["list", "--file", file.to_str().unwrap()], "");
    assert_eq!(listed.code, 0, "{}", listed.err);
    listed.out.lines().map(str::to_owned).collect()
}

/// Whether the registry lets these in.
async fn lets_in(file: &Path, user: &str, password: &str) -> bool {
    let settings = Settings {
        rules: Vec::new(),
        anonymous: Anonymous::None,
        htpasswd: Some(file.to_owned()),
        token_key: TokenKey::from_bytes(&[7; TokenKey::LENGTH]),
        public: None,
    };
    let access = Access::open(settings, Clock::system()).await.unwrap();
    let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    match access.identify(Some(header.as_bytes()), IpAddr::from([127, 0, 0, 1])).await {
        Ok(who) => who.name() == Some(user),
        Err(AccessError::WrongPassword) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_account_is_added_changed_listed_and_removed() {
    let (_home, file) = home();
    let added = add(&file, "ann", "first\n");
    assert_eq!((added.code, added.err.as_str()), (0, ""));
    assert_eq!(added.out, format!("ann was added in {}\n", file.display()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().starts_with("ann:$2y$12$"));
    assert!(lets_in(&file, "ann", "first").await && !lets_in(&file, "ann", "first\n").await);

    assert_eq!(add(&file, "bob", "second").code, 0);
    assert_eq!(add(&file, "ann", "third").out, format!("ann has a new password in {}\n", file.display()));
    assert!(lets_in(&file, "ann", "third").await && !lets_in(&file, "ann", "first").await);
    assert_eq!(names(&file), ["ann", "bob"]);
    let json = user(&["list", "--json", "--file", file.to_str().unwrap()], "").out;
    assert_eq!(json, "[{\"cost\":12,\"name\":\"ann\"},{\"cost\":12,\"name\":\"bob\"}]\n");

    let removed = user(&["rm", "ann", "--file", file.to_str().unwrap()], "");
    assert_eq!((removed.code, removed.out), (0, format!("ann was removed from {}\n", file.display())));
    assert_eq!(names(&file), ["bob"]);
    let again = user(&["rm", "ann", "--file", file.to_str().unwrap()], "");
    assert_eq!(again.code, 1);
    assert!(again.err.ends_with("there is no account \"ann\"\n"), "{}", again.err);
}

#[test]
fn everything_else_in_the_file_stays_as_it_is() {
    let (home, file) = home();
    let real = home.path().join("real");
    fs::write(&real, "# the team\nold:$apr1$x$y\n\n# robots\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &file).unwrap();
    let added = add(&file, "bot", "secret");
    assert_eq!(added.code, 0, "{}", added.err);
    assert!(added.out.contains("but the server refuses the file: line 2: the password of \"old\""), "{}", added.out);
    let text = fs::read_to_string(&real).unwrap();
    assert!(text.starts_with("# the team\nold:$apr1$x$y\n\n# robots\nbot:$2y$12$"), "{text}");
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "no temporary file is left");
    let refused = user(&["list", "--file", file.to_str().unwrap()], "");
    assert_eq!(refused.code, 1);
    assert!(!refused.err.contains("apr1"), "{}", refused.err);
}

#[test]
fn what_cannot_be_a_name_or_a_password_is_wrong_use_and_changes_nothing() {
    let (_home, file) = home();
    for (name, password, reason) in [
        ("ann", "", "empty password"),
        ("ann", "\n", "empty password"),
        ("ann", "a\nb\n", "one line"),
        ("ann", &"x".repeat(73), "bcrypt reads the first 72"),
        ("ann", &"x".repeat(100_000), "bcrypt reads the first 72"),
        ("", "secret", "cannot be empty"),
        ("a:b", "secret", "colon"),
        ("*", "secret", "cannot be called *"),
        ("#ann", "secret", "cannot be called *"),
    ] {
        let refused = add(&file, name, password);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{name}");
        assert!(refused.err.contains(reason), "{}", refused.err);
        assert!(password.len() < 3 || !refused.err.contains(password), "{}", refused.err);
        assert!(!file.exists());
    }
    for arguments in [&["add"][..], &["add", "ann", "secret"], &["rm"], &["list", "--file", "a", "--config", "b"], &[]]
    {
        assert_eq!(user(arguments, "secret").code, 2, "{arguments:?}");
    }
    for arguments in [["list", "--file"], ["rm", "--file"]] {
        let name = if arguments[0] == "rm" { &["ann"][..] } else { &[] };
        let all = [&arguments[..1], name, &arguments[1..], &[file.to_str().unwrap()]].concat();
        let absent = user(&all, "");
        assert_eq!(absent.code, 1);
        assert!(absent.err.contains("`larder user add` makes it"), "{}", absent.err);
    }
}

#[test]
fn the_file_is_the_one_that_the_configuration_names() {
    let (home, file) = home();
    let config = home.path().join("larder.toml");
    fs::write(&config, format!("[registry]\nhtpasswd = {file:?}\n")).unwrap();
    let added = user(&["add", "ann", "--config", config.to_str().unwrap()], "secret");
    assert_eq!(added.code, 0, "{}", added.err);
    assert_eq!(names(&file), ["ann"]);
    fs::write(&config, "").unwrap();
    for arguments in [&["list", "--config", config.to_str().unwrap()][..], &["list"]] {
        let nowhere = user(arguments, "");
        assert_eq!(nowhere.code, 2);
        assert!(nowhere.err.contains("--file PATH"), "{}", nowhere.err);
    }
}

#[test]
fn two_who_edit_at_once_both_succeed() {
    let (_home, file) = home();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let file = &file;
            scope.spawn(move || assert_eq!(add(file, &format!("user{number}"), "secret").code, 0));
        }
    });
    assert_eq!(names(&file).len(), 6);
}

/// Apache's own program and ours read each other's files.
#[tokio::test]
async fn the_file_is_the_one_that_htpasswd_writes() {
    let (_home, file) = home();
    if !tries_other_programs() {
        return;
    }
    let run = |arguments: &[&str]| {
        let done = Command::new("htpasswd").args(arguments).arg(&file).args(["ann", "secret"]).output().unwrap();
        done.status.success()
    };
    assert!(run(&["-cbBC", "5"]) && lets_in(&file, "ann", "secret").await);
    assert_eq!(add(&file, "ann", "changed").code, 0);
    assert!(!run(&["-vb"]));
    assert_eq!(add(&file, "ann", "secret").code, 0);
    assert!(run(&["-vb"]));
}
