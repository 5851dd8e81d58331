//! Where log lines go: standard error, as text for people or JSON for machines, one line each.
//!
//! Much of what is logged was sent by someone else. A control character in it reaches no terminal and begins no line.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log_writer::{Flush, LogWriter};
use crate::task;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people; in colour on a terminal.
    Text,
    /// A JSON object.
    Json,
}

/// From here on, what `filter` lets through is written; the last of it when what is returned is dropped.
///
/// # Errors
/// `filter` is not a filter; the error is one line.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<Flush, String> {
    let parsed = EnvFilter::builder().parse(if filter.is_empty() { "info" } else { filter });
    let filter = parsed.map_err(|error| {
        format!("--log \"{}\": {error}; write it like info, or warn,larder=debug", filter.escape_debug())
    })?;
    let writer = LogWriter::start(std::io::stderr()).map_err(|error| format!("cannot start to log: {error}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone());
    let started = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()))
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .event_format(WithCause { lines: Lines(Format::default()), is_json: false })
            .try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            lines.map_event_format(|lines| WithCause { lines, is_json: true }).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    Ok(writer.flush_at_the_end())
}

/// Adds to a line the request that caused it, if one did; the request's own line has it already. Such a line has no colour.
struct WithCause<F> {
    lines: F,
    is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithCause<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(request) = task::request().filter(|_| event.metadata().target() != ACCESS) else {
            return self.lines.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}').filter(|_| self.is_json) {
            Some(line) => writeln!(writer, "{line},\"request\":\"{}\"}}", request.as_str()),
            None => writeln!(writer, "{line} request=\"{}\"", request.as_str()),
        }
    }
}

/// The target of the line of each request.
const ACCESS: &str = "larder::access";

/// Lines as tracing writes them, but for the one of each request: a busy server writes little else, and so it is written
/// without detours, and without the names of the tasks that every request is answered in.
struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let target = event.metadata().target();
        if target != ACCESS || writer.has_ansi_escapes() {
            return self.0.format_event(context, writer, event);
        }
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:>5} {target}:", event.metadata().level().as_str())?;
        let mut fields = Fields { writer, written: Ok(()) };
        event.record(&mut fields);
        fields.written?;
        fields.writer.write_char('\n')
    }
}

/// Writes fields as [`write_field`] does.
struct Fields<'a> {
    writer: Writer<'a>,
    written: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let Fields { writer, written } = self;
        *written = written.and_then(|()| {
            writer.write_char(' ')?;
            if field.name() != "message" {
                writer.write_str(field.name())?;
                writer.write_char('=')?;
            }
            value(writer)
        });
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            return self.write(field, |writer| {
                writer.write_char('"')?;
                writer.write_str(value)?;
                writer.write_char('"')
            });
        }
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |writer| write!(Printable(writer), "{value:?}"));
    }
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
            .event_format(WithCause { lines: Lines(Format::default()), is_json: false })
            .finish();
        tracing::subscriber::with_default(lines, || {
            let agent = "docker/1 \u{1b}[2J\r\nINFO forged\u{202e}\u{85}\0";
            tracing::info!(%agent, quoted = agent, bytes = 7, "asked by {agent}");
            tracing::info!(target: "larder::access", %agent, quoted = agent, plain = "GET", bytes = 7, "asked by {agent}");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap().split('\n').collect();
        assert_eq!(lines.len(), 2);
        for line in &lines {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert!(line.contains("asked by docker/1 \\u{1b}[2J\\r\\nINFO forged"), "{line}");
            assert!(line.contains("bytes=7"), "{line}");
        }
        // The line of a request differs in nothing but what it leaves out.
        let fields = |line: &str| line.split_once(": ").unwrap().1.replace(" plain=\"GET\"", "");
        assert_eq!(fields(lines[0]), fields(lines[1]));
        assert!(
            lines[1].contains(" INFO larder::access: asked by") && lines[1].contains(" plain=\"GET\""),
            "{}",
            lines[1]
        );
    }

    #[tokio::test]
    async fn a_line_that_a_request_caused_says_which() {
        let id = task::RequestId::random();
        let captured = [Captured::default(), Captured::default()];
        let [text, json] = captured.clone();
        let text = tracing_subscriber::fmt().with_writer(move || text.clone()).with_ansi(false);
        let text = text.event_format(WithCause { lines: Lines(Format::default()), is_json: false }).finish();
        let json = tracing_subscriber::fmt().with_writer(move || json.clone()).json().flatten_event(true);
        let json = json.map_event_format(|lines| WithCause { lines, is_json: true }).finish();
        for lines in [tracing::Dispatch::new(text), tracing::Dispatch::new(json)] {
            tracing::dispatcher::with_default(&lines, || tracing::warn!(n = 1, "nobody's"));
            let caused = task::caused_by(id, async { tracing::warn!(n = 2, "somebody's") });
            let caused = tracing::instrument::WithSubscriber::with_subscriber(caused, lines);
            caused.await;
        }
        let [text, json] = captured.map(|captured| String::from_utf8(captured.0.lock().unwrap().clone()).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            !lines[0].contains("request=") && lines[1].ends_with(&format!("n=2 request=\"{}\"", id.as_str())),
            "{text}"
        );
        let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["request"], &lines[1]["request"]), (&serde_json::Value::Null, &id.as_str().into()));
    }
}
