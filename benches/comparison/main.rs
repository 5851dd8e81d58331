//! Larder beside what else mirrors images: docker-registry in proxy mode, and nginx with a cache; and beside nginx as it
//! serves files, which is the measure of what serving can cost.
//!
//! `just bench` installs the others, runs this, and prints one table in Markdown. All of it happens on loopback: an
//! upstream of generated images, a relay of fixed speed in front of it, the mirrors, the load. It belongs to no CI:
//! figures of a machine that does something else meanwhile say little.

#![allow(clippy::disallowed_methods, reason = "this measures the system's time and needs no other clock")]

mod cold;
mod content;
mod docker;
mod hot;
mod http;
mod machine;
mod process;
mod relay;
mod rows;
mod servers;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;

use relay::{Line, Relay};
use rows::Bench;
use servers::Rig;

/// What can go wrong here is for a person to read.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Compares Larder with docker-registry and nginx, and prints a table.
#[derive(Parser)]
pub struct Options {
    /// A smoke run of a minute or two, with a quarter of the sizes: its figures are worth nothing.
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; medians are shown [default: 3, quick 1].
    #[arg(long)]
    runs: Option<usize>,
    /// How long each measurement of hits lasts [default: 2s, quick 300ms].
    #[arg(long, value_parser = humantime::parse_duration)]
    window: Option<Duration>,
    /// How long to wait for an answer during an outage [default: 10s, quick 3s].
    #[arg(long, value_parser = humantime::parse_duration)]
    patience: Option<Duration>,
    /// Only rows whose title contains this, like "manifest" or "cold image".
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    rows: String,
    /// Clients of hits read what they get, instead of having the kernel throw it away: closer to a client on the same
    /// machine, farther from a server's own cost.
    #[arg(long)]
    copying_clients: bool,
    /// What cargo says to every benchmark when it is to run, and not only to be tried.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether a row is to be measured.
    pub fn wants(&self, title: &str) -> bool {
        title.contains(&self.rows)
    }

    /// Runs of each measurement.
    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// How long hits are measured.
    pub fn window(&self) -> Duration {
        self.window.unwrap_or(Duration::from_millis(if self.quick { 300 } else { 2000 }))
    }

    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        self.patience.unwrap_or(Duration::from_secs(if self.quick { 3 } else { 10 }))
    }
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    if !options.bench {
        progress("this takes minutes and wants the machine for itself: `just bench` runs it");
        return Ok(());
    }
    let home = tempfile::Builder::new().prefix("larder-comparison-").tempdir()?;
    clean_up_when_interrupted(home.path().to_owned());
    let table = compare(&options, home.path())?;
    let machine = machine::describe(home.path());
    home.close()?;
    let worth = if options.quick { "**a smoke run: these figures are worth nothing**; " } else { "" };
    let clients = if options.copying_clients { "read" } else { "discard unread" };
    writeln!(
        io::stdout(),
        "{worth}{machine}; medians of {} alternating runs; clients of hits {clients} what they get.\n\n{table}\n{}",
        options.runs(),
        rows::LEGEND
    )?;
    Ok(())
}

fn compare(options: &Options, home: &Path) -> Outcome<String> {
    let start = Instant::now();
    let rig = Rig::new(home);
    let upstream = rig.upstream()?;
    let root = home.join("files");
    let content = content::make(upstream.address, &root, if options.quick { 4 } else { 1 })?;
    let files = rig.files(&root)?;
    let relay = Relay::start(servers::free_address()?, upstream.address, Line { total: 1e9, each: None })?;
    progress("the upstream is there");

    let bench = Bench { options, rig: &rig, relay: &relay, content: &content, files: &files };
    let mut rows = bench.herd();
    rows.extend(bench.pulls());
    rows.extend(bench.docker());
    rows.extend(bench.hits());
    rows.extend(bench.outage());
    progress(&format!("done in {:.0} s", start.elapsed().as_secs_f64()));

    let registry = format!("docker-registry {}, proxy", machine::version("docker-registry"));
    let nginx = format!("nginx {}, `proxy_cache`", machine::version("nginx"));
    Ok(table::markdown(&rows, [concat!("Larder ", env!("CARGO_PKG_VERSION")), &registry, &nginx]))
}

/// A line for the person who waits; the table alone goes to standard output.
pub fn progress(what: &str) {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let _ = writeln!(io::stderr(), "{} {what}", &time[11..19]);
}

/// Servers end with the thread that started them; what they leave on disk is removed here.
fn clean_up_when_interrupted(home: PathBuf) {
    let wait = async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.and_then(|runtime| runtime.block_on(wait)).is_ok() {
            // A server that is still there may write between two looks.
            let _ = (0..5).any(|_| std::fs::remove_dir_all(&home).is_ok());
            std::process::exit(130);
        }
    });
}
