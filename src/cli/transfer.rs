//! What commands have in common that pull from a running server: where it is, and how they show how far they are.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::process_environment::variables;
use crate::client::Client;
use crate::config::Config;
use crate::oci::Digest;

/// Where images are pulled from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// The mirror's address, as clients use it; or that of a registry.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    mirror: Option<String>,
    /// The configuration file of a server on this machine.
    #[arg(long, value_name = "FILE", env = "LARDER_CONFIG")]
    config: Option<PathBuf>,
    /// The CA of the server's certificate (PEM), if this machine does not trust it.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Source {
    /// A client of it.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let ca = self.ca.as_ref().map(|file| {
            fs::read(file).map_err(|error| Failure::wrong_use(format_args!("{}: {error}", file.display())))
        });
        let url = match &self.mirror {
            Some(url) => url.clone(),
            None => {
                let config =
                    Config::load(self.config.as_deref(), variables()?.into_iter()).map_err(Failure::wrong_use)?;
                let mut address = config.mirror.listen.addr();
                if address.ip().is_unspecified() {
                    address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
                }
                format!("{}://{address}", if config.mirror.tls.is_some() { "https" } else { "http" })
            }
        };
        Client::new(&url, ca.transpose()?.as_deref()).map_err(Failure::wrong_use)
    }
}

/// Bars on a terminal; elsewhere a line for each blob.
pub(super) struct Progress {
    bars: Option<(MultiProgress, ProgressBar)>,
}

/// How far one blob is.
pub(super) struct Moving<'a> {
    progress: &'a Progress,
    bar: Option<ProgressBar>,
    digest: Digest,
    size: u64,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bars = std::io::stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            let total =
                bars.add(styled(ProgressBar::new(0), "{msg:18} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
            total.set_message("total");
            (bars, total)
        });
        Progress { bars }
    }

    /// So many bytes more are to be moved.
    pub(super) fn expect(&self, bytes: u64) {
        if let Some((_, total)) = &self.bars {
            total.inc_length(bytes);
        }
    }

    /// One blob begins.
    pub(super) fn begin(&self, digest: &Digest, size: u64) -> Moving<'_> {
        let bar = self.bars.as_ref().map(|(bars, total)| {
            let bar = bars.insert_before(total, ProgressBar::new(size));
            let bar = styled(bar, "{msg:18} {bar:40} {bytes}/{total_bytes}");
            bar.set_message(short(digest));
            bar
        });
        Moving { progress: self, bar, digest: *digest, size }
    }

    /// Tells something that stays on the screen.
    pub(super) fn say(&self, line: &str) {
        match &self.bars {
            Some((bars, _)) => drop(bars.println(line)),
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        if let Some((bars, _)) = &self.bars {
            drop(bars.clear());
        }
    }
}

impl Moving<'_> {
    /// So many bytes more have come.
    pub(super) fn moved(&self, bytes: usize) {
        if let (Some(bar), Some((_, total))) = (&self.bar, &self.progress.bars) {
            bar.inc(bytes as u64);
            total.inc(bytes as u64);
        }
    }

    /// All of it has.
    pub(super) fn done(self, how: &str) {
        match self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => {
                let size = ByteSize(self.size).display().iec().to_string();
                self.progress.say(&format!("  {} {size:>10} {how}", short(&self.digest)));
            }
        }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// As much of a digest as people compare.
fn short(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm().as_str(), digest.hex().chars().take(10).collect::<String>())
}
