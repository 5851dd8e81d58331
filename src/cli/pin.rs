//! `larder pin` and `larder unpin`: have a running server keep an image whatever happens, or not any more.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use super::running_server::{OperatorToken, RunningServer};
use crate::admin::client::{self, AdminError};
use crate::admin::query;

/// How long a server may take over it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where it does.
const PINS: &str = "/api/pins";

/// Keep an image whatever happens, whole and up to date; without an image, show what is kept.
///
/// At once, and until `larder unpin`; in `[cache]` of the configuration, `pin` does the same. It is not thrown away when room
/// is needed; when its tag moves, the new image is fetched without anyone asking for it. One that is not here is fetched.
///
/// A name without a tag means its `latest`. A pattern may have `*` in it, in quotes for the shell: 'library/alpine:*' is every
/// tag of it, 'team/*' every image there. It covers what is here and what will be pulled, and fetches no other.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder pin library/alpine:3.20")]
pub(super) struct Pin {
    /// A name, or a pattern.
    image: Option<String>,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Take back what `larder pin` did: the same name or pattern.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder unpin library/alpine:3.20")]
pub(super) struct Unpin {
    /// The name or pattern that was pinned.
    image: String,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Pin {
    pub(super) fn run(self) -> Result<(), Failure> {
        let server = self.server.url()?;
        let Some(image) = &self.image else {
            let pins = answered(client::get_within(&server, PINS, PATIENCE))?;
            return output::write(&if self.json { format!("{pins:#}\n") } else { render(&pins) });
        };
        let (token, wish) = (self.server.token(&self.token)?, json!({"pattern": image}).to_string());
        let pinned = answered(client::post(&server, token.as_ref(), PINS, wish.into(), PATIENCE))?;
        let word = if pinned["changed"] == true { "pinned" } else { "pinned already" };
        tell(&pinned, word, self.json)
    }
}

impl Unpin {
    pub(super) fn run(self) -> Result<(), Failure> {
        let server = self.server.url()?;
        let token = self.server.token(&self.token)?;
        let path = query::with(PINS, &[("pattern", &self.image)]);
        let unpinned = answered(client::delete(&server, token.as_ref(), &path, PATIENCE))?;
        tell(&unpinned, "not pinned any more", self.json)
    }
}

fn answered(work: impl Future<Output = Result<bytes::Bytes, AdminError>>) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    let bytes = runtime.block_on(work).map_err(Failure::failed)?;
    serde_json::from_slice(&bytes).map_err(|_| Failure::failed("the server did not answer as Larder does"))
}

fn tell(changed: &Value, word: &str, as_json: bool) -> Result<(), Failure> {
    let pattern = changed["pattern"].as_str().unwrap_or_default();
    output::write(&if as_json { format!("{changed:#}\n") } else { format!("{pattern}: {word}\n") })
}

fn render(pins: &Value) -> String {
    let pins = pins.as_array().map(Vec::as_slice).unwrap_or_default();
    if pins.is_empty() {
        return "nothing is pinned\n".to_owned();
    }
    let mut text = String::new();
    for pin in pins {
        let note = if pin["configured"] == true { "  (configuration)" } else { "" };
        // Writing to a text does not fail.
        let _ = writeln!(text, "{}{note}", pin["pattern"].as_str().unwrap_or_default());
    }
    text
}
