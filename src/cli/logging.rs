//! Where log lines go: standard error, as text for people or JSON for machines, one line each.
//!
//! Much of what is logged was sent by someone else. A control character in it reaches no terminal and begins no line.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{self, Writer};

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people; in colour on a terminal.
    Text,
    /// A JSON object.
    Json,
}

/// From here on, what `filter` lets through is written.
///
/// # Errors
/// `filter` is not a filter; the error is one line.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let parsed = EnvFilter::builder().parse(if filter.is_empty() { "info" } else { filter });
    let filter = parsed.map_err(|error| {
        format!("--log \"{}\": {error}; write it like info, or warn,larder=debug", filter.escape_debug())
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()))
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// `name=value`; the message without its name.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{field}=")?;
    }
    write!(Printable(writer), "{value:?}")
}

/// Passes text on with its control characters escaped, and those that turn the direction of what follows.
struct Printable<'a, W>(&'a mut W);

impl<W: Write> Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Most of what is written is this, and it is written once per request.
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| match c {
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(self.0, "{}", c.escape_unicode())
            }
            c if c.is_control() => write!(self.0, "{}", c.escape_default()),
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_client_sends_stays_on_its_line_and_off_the_terminal() {
        let captured = Captured::default();
        let writer = captured.clone();
        let lines = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(lines, || {
            let agent = "docker/1 \u{1b}[2J\r\nINFO forged\u{202e}\u{85}\0";
            tracing::info!(%agent, quoted = agent, bytes = 7, "asked by {agent}");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(line.contains("asked by docker/1 \\u{1b}[2J\\r\\nINFO forged"), "{line}");
        assert!(line.contains("bytes=7"), "{line}");
    }
}
