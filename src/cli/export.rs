//! `larder export`: writes an image that a running server serves into one file. Checks every digest on the way.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;

use super::failure::Failure;
use super::transfer::{Progress, Source};
use crate::archive::Archive;
use crate::client::{Client, Whole};
use crate::oci::{ImageName, Platform};

/// Write an image into a file, for a machine that no network reaches.
///
/// The file is an OCI image layout in a tar archive: `skopeo copy oci-archive:FILE`, `podman load` and `docker load` read
/// it. `docker load` of Docker before 25 gets the image for this machine's platform. All platforms and their attestations
/// are in it, or what --platform says.
#[derive(Debug, Args)]
#[command(after_help = "Example: larder export --platform linux/amd64 python:3.11 python.tar")]
pub(super) struct Export {
    /// The image, as people name it.
    image: ImageName,
    /// The file that is written; - is standard output.
    file: PathBuf,
    /// Only this platform, like linux/amd64; repeatable.
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    #[command(flatten)]
    source: Source,
}

impl Export {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.source.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let progress = Progress::new();
        let written = if self.file == Path::new("-") {
            runtime.block_on(self.write(&client, &progress, io::stdout().lock())).map(|(size, _)| size)
        } else {
            let directory =
                self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let failed =
                |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", self.file.display()));
            // Under its name it is whole.
            let file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(directory)
                .map_err(|error| failed(&error))?;
            let to = io::BufWriter::new(file);
            runtime.block_on(self.write(&client, &progress, to)).and_then(|(size, to)| {
                let file = to.into_inner().map_err(|error| failed(&error))?;
                file.as_file().sync_all().map_err(|error| failed(&error))?;
                file.persist(&self.file).map(|_file| size).map_err(|error| failed(&error))
            })
        };
        progress.end();
        let size = written?;
        progress.say(&format!("{}: {} in {}", self.image, ByteSize(size).display().iec(), self.file.display()));
        Ok(())
    }

    async fn write<W: Write>(&self, client: &Client, progress: &Progress, to: W) -> Result<(u64, W), Failure> {
        let refused = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", self.image));
        let whole = Whole::find(client, &self.image, &self.platforms).await.map_err(|error| refused(&error))?;
        progress.expect(whole.size());
        let mut archive = Archive::begin(to).map_err(Failure::failed)?;
        for blob in &whole.blobs {
            let moving = progress.begin(&blob.digest, blob.size);
            let mut download = client.blob(&self.image, &blob.digest).await.map_err(|error| refused(&error))?;
            if !archive.begin_blob(&blob.digest, blob.size).map_err(Failure::failed)? {
                continue;
            }
            while let Some(bytes) = download.next().await.map_err(|error| refused(&error))? {
                archive.append(&bytes).map_err(Failure::failed)?;
                moving.moved(bytes.len());
            }
            archive.end_blob().map_err(Failure::failed)?;
            moving.done(&download.outcome);
        }
        for found in &whole.manifests {
            archive.blob(&found.digest, &found.bytes).map_err(Failure::failed)?;
        }
        let root = whole.manifests.first().ok_or_else(|| refused(&"it has no manifest"))?;
        let tag = self.image.tag_or_latest();
        let registry = self.image.registry.as_ref().map(|registry| format!("{registry}/")).unwrap_or_default();
        let name = format!("{registry}{}:{tag}", self.image.name);
        let about = (&root.digest, root.bytes.len() as u64, root.manifest.media_type.as_str());
        let to = archive
            .end(about, (&name, tag.as_str()), whole.image_for(&Platform::of_this_machine()))
            .map_err(Failure::failed)?;
        Ok((whole.size(), to))
    }
}
