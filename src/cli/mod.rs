//! The command line: what can be typed, and what the program exits with. Does no work of its own.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong use (which includes a configuration that is refused).

mod backup;
mod cert;
mod certificate;
mod check_config;
mod client_files;
mod copy;
mod daemon_json;
mod destination;
mod distribution;
mod doctor;
mod export;
mod failure;
mod gc;
mod import;
mod import_cache;
mod log_writer;
mod logging;
mod ls;
mod mirror_url;
mod new_password;
mod output;
mod pin;
mod process_environment;
mod progress_bar;
mod replace_file;
mod restore;
mod rm;
mod running_server;
mod scrub;
mod serve;
mod setup;
mod status;
mod status_text;
mod transfer;
mod trust_places;
mod user;
mod warm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A pull-through caching mirror for container images, and the registry of a small team.
#[derive(Debug, Parser)]
#[command(name = "larder", version, after_help = "Example: larder serve --config /etc/larder/larder.toml")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
enum Command {
    Serve(serve::Serve),
    CheckConfig(check_config::CheckConfig),
    Scrub(scrub::Scrub),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Copy(copy::Copy),
    Warm(warm::Warm),
    Export(export::Export),
    Import(import::Import),
    Gc(gc::Gc),
    Ls(ls::Ls),
    Rm(rm::Rm),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Status(status::Status),
    User(user::User),
    Cert(cert::Cert),
    Setup(setup::Setup),
    Doctor(doctor::Doctor),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::CheckConfig(command) => command.run(),
        Command::Scrub(command) => command.run(),
        Command::Backup(command) => command.run(),
        Command::Restore(command) => command.run(),
        Command::Copy(command) => command.run(),
        Command::Warm(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Ls(command) => command.run(),
        Command::Rm(command) => command.run(),
        Command::Pin(command) => command.run(),
        Command::Unpin(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::User(command) => command.run(),
        Command::Cert(command) => command.run(),
        Command::Setup(command) => command.run(),
        Command::Doctor(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_help_has_an_example() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        let nested = cli.get_subcommands().flat_map(|command| command.get_subcommands());
        for command in cli.get_subcommands().chain(nested).chain([&cli]) {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example: larder "), "{help}");
        }
        for (command, detail) in [
            ("serve", "Without a file"),
            ("check-config", "Passwords are masked"),
            ("status", "Exits with"),
            ("setup", "kept beside them"),
            ("doctor", "Changes nothing"),
        ] {
            let help = cli.find_subcommand(command).unwrap().clone().render_long_help().to_string();
            assert!(help.contains(detail), "{help}");
        }
    }
}
