//! `larder doctor`: does a client on this machine really pull through the mirror, and if not, why not?
//!
//! `gather` finds out, `diagnosis` judges, `finding` is what is said. No engine is changed.

mod certificates;
mod command;
mod containerd;
mod conversation;
mod diagnosis;
mod docker;
mod facts;
mod finding;
mod gather;
mod hosts_toml;
mod no_proxy;
mod places;
mod podman;
mod probe;
mod reach;
mod variables;

use std::io::IsTerminal;

use clap::Args;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::mirror_url::{MirrorUrl, text_of};
use crate::cli::output;
use crate::clock::Clock;
use crate::config::BaseUrl;
use facts::{Facts, Kind, Probe};
use finding::{Finding, Mark};

/// Prove that this machine pulls through the mirror, or say why it does not.
///
/// Finds the engines, reads how they are configured, asks the mirror, and has each engine pull an image that nobody has:
/// the mirror says whether that arrived. Changes nothing. Root sees most: sockets and the variables of daemons.
///
/// Exits with 0 if it is proven, and with 1 if anything is in the way.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo larder doctor --mirror http://mirror.lan:5000")]
pub(super) struct Doctor {
    /// Where the mirror is; without it, where an engine's configuration says.
    #[arg(long, value_name = "URL", value_parser = text_of::<BaseUrl>)]
    mirror: Option<BaseUrl>,
    /// Look at this engine only; then having no mirror is a failure, too.
    #[arg(long, value_name = "ENGINE")]
    engine: Option<Kind>,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mirror = self.mirror.map(MirrorUrl::new);
        let (places, clock) = (gather::Places::of_this_process(), Clock::system());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let facts = runtime.block_on(gather::gather(mirror, self.engine, &places, &clock));
        let Some(facts) = facts else { return Err(Failure::wrong_use("which mirror? --mirror http://HOST:5000")) };
        let findings = diagnosis::diagnose(&facts);
        let is_proven = !findings.iter().any(|finding| finding.mark == Mark::Fail) && is_proven(&facts);
        output::write(&if self.json { as_json(&facts, &findings, is_proven) } else { as_text(&findings) })?;
        if is_proven { Ok(()) } else { Err(Failure::failed("not proven: see above")) }
    }
}

fn is_proven(facts: &Facts) -> bool {
    facts.engines.iter().any(|engine| matches!(engine.probe, Probe::Arrived { .. }))
}

fn as_text(findings: &[Finding]) -> String {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    findings.iter().flat_map(|finding| [finding.line(colour), "\n".to_owned()]).collect()
}

fn as_json(facts: &Facts, findings: &[Finding], is_proven: bool) -> String {
    let mirror = facts.mirror.url.as_str();
    format!("{:#}\n", json!({"mirror": mirror, "proven": is_proven, "findings": findings}))
}
