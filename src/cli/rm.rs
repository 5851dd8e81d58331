//! `larder rm`: has a running server take a cached image away.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output;
use super::running_server::{OperatorToken, RunningServer};
use crate::admin::{client, query};
use crate::oci::ImageName;

/// How long a server may look at its index, and wait for an eviction that is under way.
const PATIENCE: Duration = Duration::from_secs(600);

/// Drop a cached image, and say how much disk that frees.
///
/// What other images need stays. A name without a tag means its `latest`; a tag goes alone if another tag means the same
/// image; a digest goes with all its tags. What is pinned is unpinned first. Whoever asks for the image again gets it from
/// its registry.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder rm docker.io/library/alpine:3.20")]
pub(super) struct Rm {
    /// The image.
    image: ImageName,
    /// Every tag of that name.
    #[arg(long)]
    all_tags: bool,
    /// Remove nothing: only tell what would go.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Rm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (server, image) = (self.server.url()?, self.image.to_string());
        let token = self.server.token(&self.token)?;
        let mut pairs = vec![("image", image.as_str())];
        pairs.extend(self.all_tags.then_some(("all_tags", "true")));
        pairs.extend(self.dry_run.then_some(("dry_run", "true")));
        let path = query::with("/api/images", &pairs);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let removed = runtime.block_on(client::delete(&server, token.as_ref(), &path, PATIENCE));
        let removed: Value = serde_json::from_slice(&removed.map_err(Failure::failed)?)
            .map_err(|_| Failure::failed(format_args!("{server} did not answer as Larder does")))?;
        output::write(&if self.json { format!("{removed:#}\n") } else { render(&removed) })
    }
}

fn render(removed: &Value) -> String {
    let image = removed["image"].as_str().unwrap_or_default();
    let size = ByteSize(removed["bytes"].as_u64().unwrap_or_default()).display().iec();
    let blobs = removed["blobs"].as_u64().unwrap_or_default();
    let is_whole = removed["digests"].as_array().is_some_and(|digests| !digests.is_empty());
    let verb = if removed["dry_run"] == true { "would be removed" } else { "removed" };
    let note = if is_whole { "" } else { "; another tag means the same image, which stays" };
    format!("{image} {verb}: {size} in {blobs} blobs{note}\n")
}
