//! What the documents tell people to type is what the program takes, and what they point to is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::binary::{self, larder};
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;
use crate::support::pushing::Remote;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages for people, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.extend(["README.md", "grafana/README.md"].map(|name| root().join(name)));
    assert!(paths.len() >= 5);
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The lines between ```sh and ```.
fn shell_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split("```sh\n").skip(1).flat_map(|rest| rest.split("```").next().unwrap().lines())
}

#[test]
fn every_setup_command_in_the_documents_does_what_it_says() {
    let mut tried = 0;
    for (path, text) in documents() {
        for line in shell_lines(&text) {
            let line = line.split('#').next().unwrap().trim();
            let Some(arguments) = line.trim_start_matches("sudo ").strip_prefix("larder setup ") else { continue };
            let machine = tempfile::tempdir().unwrap();
            let own = rcgen::generate_simple_self_signed(["mirror.lan".to_owned()]).unwrap();
            fs::write(machine.path().join("ca.pem"), own.cert.pem()).unwrap();
            let mut command = larder();
            command.current_dir(machine.path()).arg("setup").args(arguments.split_whitespace());
            let writes = arguments.contains("--write");
            if writes {
                command.arg("--root").arg(machine.path());
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{path:?}: {line}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(machine.path().join("etc").exists(), writes, "{path:?}: {line}");
            tried += 1;
        }
    }
    assert!(tried >= 4, "the commands were not found");
}

/// Blocks of Larder's own configuration: clients' files are TOML, too.
#[test]
fn every_configuration_in_the_documents_is_accepted() {
    let mut tried = 0;
    for (path, text) in documents() {
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for block in
            blocks.filter(|block| block.lines().any(|line| ["[mirror]", "[registry]", "[[upstream]]"].contains(&line)))
        {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("larder.toml"), block).unwrap();
            let output = larder().current_dir(home.path()).args(["check-config", "larder.toml"]).output().unwrap();
            assert!(output.status.success(), "{path:?}: {block}: {}", String::from_utf8_lossy(&output.stderr));
            tried += 1;
        }
    }
    assert!(tried >= 4, "the configurations were not found");
}

/// Every command of ours that people are told to type is one that there is, with options that it has.
#[test]
fn every_larder_command_in_the_documents_is_one_that_there_is() {
    let mut tried = 0;
    for (path, text) in documents() {
        for line in shell_lines(&text) {
            let line = line.split('#').next().unwrap().trim().trim_start_matches("sudo ");
            let Some(arguments) = line.strip_prefix("larder ") else { continue };
            let words: Vec<&str> = arguments.split(" && ").next().unwrap().split_whitespace().collect();
            // Parsed as far as the help, which is then shown instead of doing it.
            let output = larder().args(&words).arg("--help").output().unwrap();
            assert!(output.status.success(), "{path:?}: {line}: {}", String::from_utf8_lossy(&output.stderr));
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{path:?}: {line}: there is no {option}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 8, "the commands were not found");
}

#[tokio::test]
async fn the_commands_for_backup_and_restore_do_what_the_page_says() {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let commands = shell_lines(&text).map(|line| line.trim_start_matches("sudo "));
    let commands: Vec<&str> =
        commands.filter(|line| line.starts_with("larder backup ") || line.starts_with("larder restore ")).collect();
    assert!(commands.len() >= 2, "the commands were not found");
    let (hub, machine) = (Hub::plain().await, tempfile::tempdir().unwrap());
    let rules = "anonymous = \"push\"\n[[registry.repository]]\npattern = \"**\"\npull = [\"*\"]\npush = [\"*\"]";
    let (mut larder, mut other) = (Larder::hosting(&hub, rules).await, Larder::hosting(&hub, rules).await);
    let image = Image::small(1);
    Remote::new(larder.registry(), "golden/ui").push("v1", &image).await;
    larder.stop().await;
    other.stop().await;
    for command in commands {
        let data = if command.starts_with("larder backup ") { larder.data() } else { other.data() };
        let config = machine.path().join("larder.toml");
        fs::write(&config, format!("data_dir = {data:?}\n[admin]\nlisten = \"127.0.0.1:1\"\n")).unwrap();
        let backup = machine.path().join("backup");
        let command = command.replace("/mnt/backup/larder", backup.to_str().unwrap());
        let command = command.replace("/etc/larder/larder.toml", config.to_str().unwrap());
        let output = binary::larder().args(command.split_whitespace().skip(1)).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    other.start().await;
    Remote::new(other.registry(), "golden/ui").assert_pulls("v1", &image).await;
}

#[test]
fn every_file_that_the_documents_name_is_there() {
    for (path, text) in documents() {
        let links = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
        for link in links.filter(|link| !link.contains("://") && !link.is_empty()) {
            assert!(path.parent().unwrap().join(link).exists(), "{path:?} links to {link}");
        }
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, '`' | '(' | ')' | ',' | ';' | ':' | '"'));
        for word in words.filter(|word| word.starts_with("deploy/") || word.starts_with("rules/")) {
            let below = if word.starts_with("rules/") { root().join("grafana") } else { root().to_owned() };
            assert!(below.join(word.trim_end_matches(['.', '/'])).exists(), "{path:?} names {word}");
        }
    }
}

#[test]
fn every_test_that_the_page_of_attacks_names_exists() {
    let text = fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let mut sources = String::new();
    let mut directories = vec![root().join("src"), root().join("tests")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let names = text.split('`').skip(1).step_by(2).filter(|name| name.contains('_'));
    let missing: Vec<&str> = names.clone().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(names.count() > 50 && missing.is_empty(), "{missing:?}");
}
