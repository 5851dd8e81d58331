//! `larder copy`: has a running server take an image into one of its own repositories. Moves no bytes itself.

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use super::running_server::{OperatorToken, RunningServer};
use crate::admin::client;
use crate::oci::{ImageName, Platform};

/// Take an image into a repository of your own, without a second copy of its bytes.
///
/// The source is an image that is cached or can be pulled, by any name that people write, or one of your own. What is not
/// cached is fetched first. All platforms and their attestations come along; with one --platform its image gets the tag,
/// with several a new index of those does, whose digest is another than the source's. With --referrers, signatures, SBOMs
/// and whatever else refers to what is copied come along. A tag that is immutable stays what it is. The tag is durable when
/// this command ends.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder copy docker.io/library/python:3.11 golden/python:3.11")]
pub(super) struct Copy {
    /// The image to take.
    source: ImageName,
    /// The name and the tag that it gets; a pattern of [[registry.repository]] covers the name.
    destination: ImageName,
    /// Only this platform, like linux/amd64; repeatable.
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// Take what refers to the image, too: by its `subject`, or under tags like `sha256-….sig`.
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
    /// Print what was copied as JSON.
    #[arg(long)]
    json: bool,
}

impl Copy {
    pub(super) fn run(self) -> Result<(), Failure> {
        let server = self.server.url()?;
        let token = self.server.token(&self.token)?;
        let platforms: Vec<String> = self.platforms.iter().map(ToString::to_string).collect();
        let (source, destination) = (self.source.to_string(), self.destination.to_string());
        let order =
            json!({"source": source, "destination": destination, "platforms": platforms, "referrers": self.referrers});
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let work = client::work(&server, token.as_ref(), "/api/copy", order.to_string().into());
        let copied = runtime.block_on(work).map_err(Failure::failed)?;
        output::write(&if self.json { format!("{copied:#}\n") } else { render(&copied) })
    }
}

fn render(copied: &Value) -> String {
    let number = |key: &str| copied[key].as_u64().unwrap_or_default();
    let text = |key: &str| copied[key].as_str().unwrap_or_default();
    let size = ByteSize(number("bytes")).display().iec();
    let (manifests, blobs) = (number("manifests"), number("blobs"));
    let referrers = match number("referrers") {
        0 => String::new(),
        some => format!("; with {some} that refer to it"),
    };
    let note = if copied["is_new_index"] == true { "; a new index, of the chosen platforms" } else { "" };
    let (destination, source, digest) = (text("destination"), text("source"), text("digest"));
    format!("{destination} is {source}\n{digest}: {manifests} manifests, {blobs} blobs, {size}{note}{referrers}\n")
}
