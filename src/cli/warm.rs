//! `larder warm`: pulls images through a running mirror so that it has them, and keeps nothing of them itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::failure::Failure;
use super::output;
use super::transfer::{Progress, Source};
use crate::client::{Client, ClientError, Whole};
use crate::oci::{Descriptor, ImageName, Platform};

/// Blobs that are pulled at one time.
const AT_ONCE: usize = 4;

/// Pull images into the mirror's cache.
///
/// Every blob is pulled through the mirror, checked against its digest and thrown away. What the mirror has already costs
/// nothing but reading it, so a warm-up that was broken off is simply repeated. After an image that fails, the others are
/// pulled all the same; the exit code is 1 then.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder warm --mirror http://mirror.lan:5000 alpine:3.20 ghcr.io/org/app")]
pub(super) struct Warm {
    /// The images, as people name them.
    #[arg(required_unless_present = "file")]
    images: Vec<ImageName>,
    /// A file with one image on each line; what follows a # is a comment.
    #[arg(long, value_name = "LIST")]
    file: Option<PathBuf>,
    /// The platform to pull, like linux/arm64, or `all`; repeatable. Without it that of this machine.
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<String>,
    #[command(flatten)]
    source: Source,
    /// Print what became of each image as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Warmed {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    manifests: usize,
    blobs: usize,
    bytes: u64,
    // How many of its blobs came about how: hit, miss, …
    outcomes: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Warm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (client, platforms, images) = (self.source.client()?, self.platforms()?, self.images()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let progress = Progress::new();
        let mut warmed = Vec::new();
        runtime.block_on(async {
            for image in images {
                progress.say(&image.to_string());
                let one = match warm(&client, &image, &platforms, &progress).await {
                    Ok(warmed) => warmed,
                    Err(error) => Warmed { error: Some(error.to_string()), ..nothing(&image) },
                };
                if let Some(error) = &one.error {
                    progress.say(&format!("  failed: {error}"));
                }
                warmed.push(one);
            }
        });
        progress.end();
        output::write(&if self.json { json(&warmed)? } else { render(&warmed) })?;
        let failed: Vec<&str> = warmed.iter().filter(|one| one.error.is_some()).map(|one| one.image.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { Err(Failure::failed(format_args!("not pulled: {}", failed.join(", ")))) }
    }

    fn platforms(&self) -> Result<Vec<Platform>, Failure> {
        if self.platforms.iter().any(|platform| platform == "all") {
            return Ok(Vec::new());
        }
        if self.platforms.is_empty() {
            return Ok(vec![Platform::of_this_machine()]);
        }
        self.platforms.iter().map(|platform| platform.parse().map_err(Failure::wrong_use)).collect()
    }

    fn images(&self) -> Result<Vec<ImageName>, Failure> {
        let mut images = self.images.clone();
        let Some(file) = &self.file else { return Ok(images) };
        let wrong = |line: usize, error: &dyn std::fmt::Display| {
            Failure::wrong_use(format_args!("{}: line {line}: {error}", file.display()))
        };
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::wrong_use(format_args!("{}: {error}", file.display())))?;
        for (n, line) in text.lines().enumerate() {
            let name = line.split('#').next().unwrap_or_default().trim();
            if !name.is_empty() {
                images.push(name.parse().map_err(|error| wrong(n + 1, &error))?);
            }
        }
        Ok(images)
    }
}

async fn warm(
    client: &Client,
    image: &ImageName,
    platforms: &[Platform],
    progress: &Progress,
) -> Result<Warmed, ClientError> {
    let whole = Whole::find(client, image, platforms).await?;
    progress.expect(whole.size());
    let pull = |blob: Descriptor| async move {
        let moving = progress.begin(&blob.digest, blob.size);
        let mut download = client.blob(image, &blob.digest).await?;
        while let Some(bytes) = download.next().await? {
            moving.moved(bytes.len());
        }
        moving.done(&download.outcome);
        Ok::<String, ClientError>(download.outcome)
    };
    let pulls = stream::iter(whole.blobs.clone()).map(pull).buffer_unordered(AT_ONCE);
    let outcomes = pulls.try_fold(BTreeMap::new(), |mut counts: BTreeMap<String, usize>, outcome| async move {
        *counts.entry(outcome).or_default() += 1;
        Ok(counts)
    });
    let outcomes = outcomes.await?;
    let digest = whole.manifests.first().map(|root| root.digest.to_string()).filter(|_| !whole.is_new_index);
    let (manifests, blobs, bytes) = (whole.manifests.len(), whole.blobs.len(), whole.size());
    Ok(Warmed { digest, manifests, blobs, bytes, outcomes, ..nothing(image) })
}

fn nothing(image: &ImageName) -> Warmed {
    let image = image.to_string();
    Warmed { image, digest: None, manifests: 0, blobs: 0, bytes: 0, outcomes: BTreeMap::new(), error: None }
}

fn json(warmed: &[Warmed]) -> Result<String, Failure> {
    serde_json::to_string_pretty(warmed).map(|text| text + "\n").map_err(Failure::failed)
}

fn render(warmed: &[Warmed]) -> String {
    let line = |one: &Warmed| {
        let Warmed { image, blobs, bytes, outcomes, error, .. } = one;
        if let Some(error) = error {
            return format!("{image}: {error}\n");
        }
        let size = ByteSize(*bytes).display().iec();
        let had = outcomes.get("hit").copied().unwrap_or_default();
        format!("{image}: {blobs} blobs, {size}; {had} were there already\n")
    };
    warmed.iter().map(line).collect()
}
