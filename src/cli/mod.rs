//! The command line: what can be typed, and what the program exits with. Does no work of its own.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong use (which includes a configuration that is refused).

mod check_config;
mod failure;
mod logging;
mod operator;
mod process_environment;
mod scrub;
mod serve;

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
enum Command {
    Serve(serve::Serve),
    CheckConfig(check_config::CheckConfig),
    Scrub(scrub::Scrub),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::CheckConfig(command) => command.run(),
        Command::Scrub(command) => command.run(),
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
        for command in cli.get_subcommands().chain([&cli]) {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example: larder "), "{help}");
        }
        for (command, detail) in [("serve", "Without a file"), ("check-config", "Passwords are masked")] {
            let help = cli.find_subcommand(command).unwrap().clone().render_long_help().to_string();
            assert!(help.contains(detail), "{help}");
        }
    }
}
