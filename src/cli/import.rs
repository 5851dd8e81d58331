//! `larder import`: pushes the images of an archive to a running server's registry, as any client would push them; or puts
//! them into the cache.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use futures_util::stream;

use super::destination::Destination;
use super::failure::Failure;
use super::import_cache;
use super::new_password;
use super::output;
use super::running_server::{OperatorToken, RunningServer};
use super::transfer::Progress;
use crate::archive::{Contents, PackedBlob, PackedImage};
use crate::client::{ClientError, Pushing};
use crate::oci::{ImageName, Reference, Registry, RepoName, Tag};

/// Take in images from a file, or from another proxy's cache.
///
/// The file is an OCI image layout in a tar archive (larder export, skopeo copy oci-archive:, docker save from Docker 25)
/// or what docker save wrote before that, for whose images a manifest is made. Every digest in it is checked before
/// anything is done. It is pushed to the private registry, as any client would push it: what is there already is not sent
/// again. With --cache it goes into the cache instead, under the name that it has upstream.
///
/// --cache and --from-distribution ask the running server that --admin or --config names; where none runs, they work on the
/// data directory that --config names. An upstream with an account is asked once whether a repository is for everyone before
/// anything of it is served.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: larder import python.tar golden/python:3.11 --username anna --password-stdin < password"
)]
pub(super) struct Import {
    /// The archive, unpacked if it was compressed.
    #[arg(value_name = "FILE", required_unless_present = "from_distribution")]
    archive: Option<PathBuf>,
    /// The name and the tag that the image gets. Without it those that the archive gives.
    name: Option<ImageName>,
    /// Into the cache, instead of the registry.
    #[arg(long, conflicts_with_all = ["registry", "username"])]
    cache: bool,
    /// Take over the cache of a docker-registry (distribution) that was a proxy: its rootdirectory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["archive", "registry", "username"])]
    from_distribution: Option<PathBuf>,
    /// The registry that it was a proxy of, as `[[upstream]]` names it.
    #[arg(long, value_name = "NAME", default_value = "docker.io", requires = "from_distribution")]
    of: Registry,
    /// The registry's address, as clients use it.
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "admin"])]
    registry: Option<String>,
    #[command(flatten)]
    server: RunningServer,
    #[command(flatten)]
    token: OperatorToken,
    /// The CA of the server's certificate (PEM), if this machine does not trust it.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The account to push with.
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read its password from standard input.
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

impl Import {
    pub(super) fn run(self) -> Result<(), Failure> {
        let progress = Progress::new();
        let done = match (&self.from_distribution, &self.archive) {
            (Some(directory), _) => import_cache::source(directory).and_then(|source| {
                let source = (directory.as_path(), &source);
                self.fill_cache(|cache| import_cache::distribution(cache, source, &self.of, &progress))
            }),
            (None, Some(file)) => self.import(file, &progress),
            (None, None) => Err(Failure::wrong_use("name an archive, or --from-distribution DIR")),
        };
        progress.end();
        output::write(&done?)
    }

    fn import(&self, file: &Path, progress: &Progress) -> Result<String, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", file.display()));
        let contents = Contents::open(file).map_err(|error| wrong(&error))?;
        let images = contents.images().map_err(|error| wrong(&error))?;
        let named: Vec<(&PackedImage, ImageName)> = images.iter().zip(self.named(&images)?).collect();
        let contents = Arc::new(contents);
        if self.cache {
            return self.fill_cache(|cache| import_cache::archive(cache, &contents, &named, progress));
        }
        if self.server.admin.is_some() {
            return Err(Failure::wrong_use("--admin is for --cache: --registry says where your own images are"));
        }
        self.push(contents, &named, progress)
    }

    fn fill_cache(&self, work: impl FnOnce(&Destination) -> Result<String, Failure>) -> Result<String, Failure> {
        let stopped = self.server.config.is_some().then(|| self.server.configuration()).transpose()?;
        let cache = Destination::of(self.server.url()?, self.server.token(&self.token)?, stopped.as_ref())?;
        let done = work(&cache);
        cache.close();
        done
    }

    fn push(
        &self,
        contents: Arc<Contents>,
        images: &[(&PackedImage, ImageName)],
        progress: &Progress,
    ) -> Result<String, Failure> {
        if images.iter().any(|(_, name)| self.name.is_some() && name.registry.is_some()) {
            let advice = "the name is one of yours, with a tag: golden/python:3.11; --registry says where";
            return Err(Failure::wrong_use(advice));
        }
        let password = match &self.username {
            Some(name) => Some((name.as_str(), new_password::from_input()?)),
            None => None,
        };
        let ca = self.ca.as_ref().map(|file| {
            fs::read(file).map_err(|error| Failure::wrong_use(format_args!("{}: {error}", file.display())))
        });
        let account = password.as_ref().map(|(name, password)| (*name, password));
        let pushing = Pushing::new(&self.url()?, ca.transpose()?.as_deref(), account).map_err(Failure::wrong_use)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        runtime.block_on(async {
            let mut text = String::new();
            for (image, name) in images {
                let (name, tag) = (&name.name, name.tag_or_latest());
                push(&pushing, &contents, image, (name, &tag), progress)
                    .await
                    .map_err(|error| Failure::failed(format_args!("{name}:{tag}: {error}")))?;
                let size: u64 = image.blobs.iter().map(|blob| blob.size).sum();
                let digest = image.manifests.last().map(|(digest, ..)| digest.to_string()).unwrap_or_default();
                text += &format!("{name}:{tag}: {digest}, {}\n", ByteSize(size).display().iec());
            }
            Ok(text)
        })
    }

    fn url(&self) -> Result<String, Failure> {
        if let Some(url) = &self.registry {
            return Ok(url.clone());
        }
        let config = self.server.configuration()?;
        let none =
            || Failure::wrong_use("which registry? say --registry http://registry.lan:5001, or --config FILE of one");
        let registry = config.registry.ok_or_else(none)?;
        let address = registry.listen.addr();
        let local = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, address.port()));
        let address = if address.ip().is_unspecified() { local } else { address };
        Ok(format!("{}://{address}", if registry.tls.is_some() { "https" } else { "http" }))
    }

    /// What each image is called where it goes.
    fn named(&self, images: &[PackedImage]) -> Result<Vec<ImageName>, Failure> {
        match (&self.name, images) {
            (_, []) => Err(Failure::failed("there is no image in the archive")),
            (Some(name), _) if name.digest.is_some() => {
                Err(Failure::wrong_use("give a name and a tag: the digest is that of what is in the archive"))
            }
            (Some(name), [_one]) => Ok(vec![name.clone()]),
            (Some(_), many) => Err(Failure::wrong_use(format_args!(
                "there are {} images in the archive, so they cannot have one name: leave it out",
                many.len()
            ))),
            (None, many) => many
                .iter()
                .map(|image| {
                    let names = image.names.iter().filter_map(|name| name.parse::<ImageName>().ok());
                    // A tag alone says nothing, and a layout's image may have no more.
                    let mut full = names.filter(|name| name.tag.is_some());
                    let unnamed = "the archive does not say what its image is called: give a name";
                    full.next().ok_or_else(|| Failure::wrong_use(unnamed))
                })
                .collect(),
        }
    }
}

async fn push(
    pushing: &Pushing,
    contents: &Arc<Contents>,
    image: &PackedImage,
    (name, tag): (&RepoName, &Tag),
    progress: &Progress,
) -> Result<(), ClientError> {
    progress.expect(image.blobs.iter().map(|blob| blob.size).sum());
    for blob in &image.blobs {
        let moving = progress.begin(&blob.digest, blob.size);
        let how = if pushing.has(name, &blob.digest).await? {
            "was there already"
        } else {
            pushing.blob(name, &blob.digest, blob.size, pieces(contents.clone(), *blob)).await?;
            "pushed"
        };
        moving.moved(blob.size as usize);
        moving.done(how);
    }
    for (n, (digest, media_type, bytes)) in image.manifests.iter().enumerate() {
        // The tag comes last.
        let reference = Reference::Digest(*digest);
        pushing.manifest(name, &reference, *media_type, bytes.clone()).await?;
        if n + 1 == image.manifests.len() {
            pushing.manifest(name, &Reference::Tag(tag.clone()), *media_type, bytes.clone()).await?;
        }
    }
    Ok(())
}

fn pieces(
    contents: Arc<Contents>,
    blob: PackedBlob,
) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    stream::unfold(0, move |at| {
        let contents = contents.clone();
        async move {
            if at >= blob.size {
                return None;
            }
            let piece = contents.read(&blob, at);
            let next = piece.as_ref().map_or(blob.size, |piece| at + piece.len() as u64);
            Some((piece, next))
        }
    })
}
