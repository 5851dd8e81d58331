//! `larder ls`: shows what a running server has, as images. Changes nothing.

use std::fmt::Write;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output;
use super::running_server::RunningServer;
use crate::admin::client::{self, AdminUrl};
use crate::admin::{MOST_IMAGES, query};
use crate::clock::Clock;

/// How long a server may look at its index and manifests: some seconds for a million blobs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Show what is cached and hosted: each image, what it takes, and when it was last used.
///
/// SIZE is the disk that only this image needs: what `larder rm` would free. SHARED is what it needs together with others.
/// Complete is an image of which every platform that was pulled can be pulled from here alone.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder ls alpine")]
pub(super) struct Ls {
    /// Only images with this in their names.
    pattern: Option<String>,
    #[command(flatten)]
    server: RunningServer,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(super) fn run(self) -> Result<(), Failure> {
        let server = self.server.url()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let images = runtime.block_on(self.images(&server))?;
        if self.json {
            return output::write(&format!("{:#}\n", Value::from(images)));
        }
        if images.is_empty() {
            let by_that_name = if self.pattern.is_some() { " by that name" } else { "" };
            return output::write(&format!("nothing is cached{by_that_name}\n"));
        }
        output::write(&render(&images, Clock::system().unix_seconds()))
    }

    async fn images(&self, server: &AdminUrl) -> Result<Vec<Value>, Failure> {
        let (mut images, mut after) = (Vec::new(), String::new());
        loop {
            let part = self.pattern.as_deref().unwrap_or_default();
            let path = query::with("/api/images", &[("q", part), ("after", &after)]);
            let bytes = client::get_within(server, &path, PATIENCE).await.map_err(Failure::failed)?;
            let page: Vec<Value> = serde_json::from_slice(&bytes)
                .map_err(|_| Failure::failed(format_args!("{server} did not answer as Larder does")))?;
            let is_last = page.len() < MOST_IMAGES;
            if let Some(last) = page.last() {
                after = format!("{}@{}", text(last, "image"), text(last, "digest"));
            }
            images.extend(page);
            if is_last {
                return Ok(images);
            }
        }
    }
}

fn text<'v>(image: &'v Value, key: &str) -> &'v str {
    image[key].as_str().unwrap_or_default()
}

fn words<'v>(image: &'v Value, key: &str) -> Vec<&'v str> {
    image[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn render(images: &[Value], now: u64) -> String {
    let size = |image: &Value, key: &str| ByteSize(image[key].as_u64().unwrap_or_default()).display().iec().to_string();
    let mut rows: Vec<[String; 6]> = vec![["IMAGE", "PLATFORMS", "SIZE", "SHARED", "USED", "NOTES"].map(str::to_owned)];
    for image in images {
        let tags = words(image, "tags");
        let name = match tags.is_empty() {
            true => format!("{}@{}", text(image, "image"), text(image, "digest")),
            false => format!("{}:{}", text(image, "image"), tags.join(",")),
        };
        let used = image["last_used"].as_u64().filter(|used| *used > 0).map(|used| ago(now.saturating_sub(used)));
        let is = |key: &str| image[key] == true;
        let notes = [
            (is("hosted"), "hosted"),
            (is("pinned"), "pinned"),
            (!is("complete"), "incomplete"),
            (is("stale"), "stale"),
        ];
        let notes: Vec<&str> = notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect();
        rows.push([
            name,
            words(image, "platforms").join(","),
            size(image, "bytes"),
            size(image, "shared_bytes"),
            used.unwrap_or_default(),
            notes.join(", "),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        row.iter().zip(&mut widths).for_each(|(cell, width)| *width = cell.len().max(*width));
    }
    let mut table = String::new();
    for [name, platforms, size, shared, used, notes] in rows {
        let [a, b, c, d, e, _] = widths;
        let line = format!("{name:a$}  {platforms:b$}  {size:>c$}  {shared:>d$}  {used:>e$}  {notes}");
        // Writing to a text does not fail.
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

/// In the largest unit only.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => "now".to_owned(),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_image_and_notes_what_is_out_of_the_ordinary() {
        let image = json!({"image": "docker.io/library/alpine", "tags": ["3.20", "latest"], "digest": "sha256:12",
            "platforms": ["linux/amd64"], "bytes": 4096, "shared_bytes": 0, "last_used": 1000, "complete": true,
            "pinned": false, "stale": false, "upstream": "docker.io", "hosted": false});
        let mut other = image.clone();
        other["tags"] = json!([]);
        (other["complete"], other["pinned"], other["last_used"]) = (json!(false), json!(true), json!(0));
        let table = render(&[image, other], 1000 + 7200);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("docker.io/library/alpine:3.20,latest "), "{table}");
        assert!(lines[1].ends_with("4.0 KiB     0 B    2h"), "{table}");
        assert!(lines[2].starts_with("docker.io/library/alpine@sha256:12 "), "{table}");
        assert!(lines[2].ends_with("pinned, incomplete"), "{table}");
    }
}
