//! How a command ends badly: one line for people and an exit code for programs.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was asked in the wrong way: trying again changes nothing.
    WrongUse(String),
    /// It could not.
    Failed(String),
}

impl Failure {
    pub(super) fn wrong_use(error: impl Display) -> Failure {
        Failure::WrongUse(error.to_string())
    }

    pub(super) fn failed(error: impl Display) -> Failure {
        Failure::Failed(error.to_string())
    }

    /// Says it, and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let (text, code) = match self {
            Failure::WrongUse(text) => (text, 2),
            Failure::Failed(text) => (text, 1),
        };
        // Who closed our standard error does not want to know.
        let _ = writeln!(std::io::stderr(), "larder: {text}");
        ExitCode::from(code)
    }
}
