//! Holds the shape of the house: imports go down only, sled and hyper stay in their rooms, every file says what it is.
//!
//! Reads the source as text. A failure's message says which rule and why, so that it can be argued with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, the ground first. A room imports from lower floors, never from its own or a higher one.
const FLOORS: [&[&str]; 8] = [
    &["clock", "memory", "metric", "oci", "secret", "task"],
    &["access", "archive", "client", "oci_layout", "routing", "server"],
    &["storage", "upstream"],
    &["backup", "cache", "hosted"],
    &["http"],
    &["admin", "config"],
    &["app", "fuzzing"],
    &["cli"],
];

/// Longest file, tests apart: about what is read in one sitting.
const MAX_LINES: usize = 400;

struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.path.components().next().unwrap().as_os_str().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str().to_str().unwrap().starts_with("test"))
    }

    /// Without comments and without the unit tests at the end.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    fn collect(directory: &Path, root: &Path, into: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                into.push(Source { path: path.strip_prefix(root).unwrap().to_owned(), text });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    assert!(sources.len() > 40, "the source was not found");
    sources
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The words that follow `prefix` in `code`: `crate::` gives rooms, `super::` gives siblings.
fn words_after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).map(move |(at, _)| {
        let rest = &code[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let room = source.room();
        if matches!(room, "main" | "lib") {
            continue;
        }
        let here = floor(room).unwrap_or_else(|| panic!("src/{room} is on no floor: give it one in FLOORS"));
        for imported in words_after(&source.code(), "crate::") {
            match floor(imported) {
                _ if imported == room => {}
                Some(there) if there < here => {}
                _ => wrong.push(format!("{} imports crate::{imported}", source.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "what two rooms share lives in the lower one:\n{}", wrong.join("\n"));
}

#[test]
fn inside_a_room_imports_go_down_too() {
    let sources = sources();
    let mut folders: BTreeMap<&Path, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let folder = source.path.parent().unwrap();
        if folder.components().count() > 0 && source.path.file_name().unwrap() != "mod.rs" {
            folders.entry(folder).or_default().push(source);
        }
    }
    for (folder, files) in folders {
        let mut below: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for file in &files {
            let name = file.path.file_stem().unwrap().to_str().unwrap();
            for imported in words_after(&file.code(), "super::") {
                let is_file = files.iter().any(|other| other.path.file_stem().unwrap() == imported);
                let own_face = imported.starts_with(char::is_uppercase);
                assert!(!own_face, "{} imports {imported} from its own mod.rs", file.path.display());
                if is_file {
                    below.entry(name).or_default().insert(imported.to_owned());
                }
            }
        }
        // What imports nothing that is left lies at the bottom: take it away until nothing is left, or only a circle.
        let mut left: BTreeSet<String> =
            files.iter().map(|file| file.path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        loop {
            let bottom: Vec<String> = left
                .iter()
                .filter(|name| below.get(name.as_str()).is_none_or(|imports| imports.is_disjoint(&left)))
                .cloned()
                .collect();
            if bottom.is_empty() {
                break;
            }
            left.retain(|name| !bottom.contains(name));
        }
        assert!(left.is_empty(), "{} has files that import each other in a circle: {left:?}", folder.display());
    }
}

#[test]
fn risky_crates_stay_in_their_rooms() {
    let rules: [(&str, &[&str], &str); 5] = [
        ("sled::", &["storage/index/"], "only the index may name sled: it must stay replaceable"),
        (
            "hyper::",
            &["client/", "server/", "upstream/", "http/", "admin/", "cli/doctor/conversation.rs"],
            "HTTP is for the floors that speak it",
        ),
        (
            "hyper_util::",
            &["client/", "server/", "upstream/", "admin/client.rs", "cli/doctor/conversation.rs"],
            "HTTP is for the floors that speak it",
        ),
        (
            "std::fs",
            &[
                "storage/",
                "oci_layout/",
                "archive/contents",
                "config/",
                "cli/",
                "server/tls",
                "access/accounts",
                "access/token_key",
                "app/",
            ],
            "files belong to storage",
        ),
        ("std::env", &["cli/"], "the environment is read once, at the command line"),
    ];
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (name, allowed, reason) in rules {
            let path = source.path.to_str().unwrap();
            // `hyper::` also ends `tokio_hyper::`: only a whole word counts.
            let named = source.code().match_indices(name).any(|(at, _)| {
                // What the compiler knows of the machine is not the environment.
                !source.code()[at..].starts_with("std::env::consts")
                    && !source.code()[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            });
            assert!(!named || allowed.iter().any(|room| path.starts_with(room)), "{path} names {name}: {reason}");
        }
    }
}

#[test]
fn the_words_of_the_specification_wait_for_nothing() {
    for source in sources().iter().filter(|source| source.room() == "oci") {
        for name in ["async ", "std::io", "std::net", "tokio", "std::time"] {
            assert!(!source.code().contains(name), "{} names {name}: oci is words only", source.path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_can_be_read_in_one_sitting() {
    for source in sources() {
        let path = source.path.display();
        assert!(source.text.starts_with("//!"), "{path} does not begin with what it is");
        let lines = source.code().lines().count();
        assert!(source.is_test() || lines <= MAX_LINES, "{path} has {lines} lines of code: it has become two things");
        for name in ["util", "helper", "manager", "common", "misc"] {
            assert!(!source.path.to_str().unwrap().contains(name), "{path}: {name} says nothing about what is in it");
        }
        let left_for_later = ["TODO", "FIXME", "todo!(", "unimplemented!("];
        assert!(!left_for_later.iter().any(|word| source.text.contains(word)), "{path} leaves something for later");
    }
}

#[test]
fn the_map_is_true() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    assert!(map.lines().count() < 200, "ARCHITECTURE.md is to be read in ten minutes");
    for room in FLOORS.iter().flat_map(|rooms| rooms.iter()) {
        assert!(map.contains(&format!("`{room}`")), "ARCHITECTURE.md does not name `{room}`");
    }
}

#[test]
fn ci_runs_the_test_command_that_the_readme_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let command = readme.lines().find(|line| line.starts_with("cargo test")).unwrap();
    let ci = fs::read_to_string(root.join(".ci/run")).unwrap();
    assert!(ci.lines().any(|line| line == command), "CI does not run {command:?}");
}
