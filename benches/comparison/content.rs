//! What is pulled: generated images, pushed to the upstream, and written as plain files for nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use larder::oci::Digest;

use crate::Outcome;
use crate::http::Connection;

/// The repository of all images; so named that Larder takes it for one of Docker Hub.
const REPOSITORY: &str = "library/comparison";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const BLOB_TYPE: &str = "application/octet-stream";
const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Content on the upstream.
#[derive(Clone, Copy)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// An image on the upstream.
pub struct Image {
    tag: &'static str,
    manifest: Digest,
    /// Its config and its layers, in the order in which clients ask.
    pub blobs: Vec<Blob>,
}

/// All that is measured with.
pub struct Content {
    /// One layer of 64 MiB.
    pub herd: Image,
    /// Ten layers of all sizes.
    pub ten: Image,
    /// One layer of 1 MiB, one of 256 MiB.
    pub hot: Image,
    /// Ten layers that Docker can unpack, of all sizes; ten of which one is half of the image, and nine tenths.
    pub docker: [Image; 3],
}

impl Blob {
    /// Where it is on any registry.
    pub fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }
}

impl Image {
    /// As a user of Docker names it.
    pub fn name(&self) -> String {
        format!("{}:{}", REPOSITORY.trim_start_matches("library/"), self.tag)
    }

    /// Where its manifest is by tag.
    pub fn by_tag(&self) -> String {
        format!("/v2/{REPOSITORY}/manifests/{}", self.tag)
    }

    /// Where its manifest is by digest.
    pub fn by_digest(&self) -> String {
        format!("/v2/{REPOSITORY}/manifests/{}", self.manifest)
    }

    /// Its layers without the config.
    pub fn layers(&self) -> &[Blob] {
        &self.blobs[1..]
    }
}

/// Makes everything, pushes it to `upstream`, and writes what is served hot below `root`, under the paths of a registry.
/// What is pulled cold can be made smaller.
pub fn make(upstream: SocketAddr, root: &Path, divisor: usize) -> Outcome<Content> {
    let maker = Maker { upstream, root };
    Ok(Content {
        herd: maker.image("herd", &[64 * MIB / divisor], false)?,
        ten: maker.image("ten", &[48, 32, 32, 24, 16, 16, 8, 8, 4, 2].map(|size| size * MIB / divisor), false)?,
        hot: maker.image("hot", &[MIB, 256 * MIB], true)?,
        docker: [
            maker.tars("docker-even", &[40, 32, 24, 24, 16, 16, 16, 12, 12, 8].map(|size| size * MIB / divisor))?,
            maker.tars("docker-one-large", &[24, 16, 100, 16, 12, 12, 8, 6, 4, 2].map(|size| size * MIB / divisor))?,
            maker.tars("docker-one-huge", &[4, 3, 180, 3, 2, 2, 2, 2, 1, 1].map(|size| size * MIB / divisor))?,
        ],
    })
}

struct Maker<'a> {
    upstream: SocketAddr,
    root: &'a Path,
}

impl Maker<'_> {
    fn image(&self, tag: &'static str, layers: &[usize], hot: bool) -> Outcome<Image> {
        let config = format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"for":"{tag}"}}}}}}"#);
        let mut blobs = vec![self.blob(config.as_bytes(), hot)?];
        for (n, &size) in layers.iter().enumerate() {
            let seed = tag.bytes().fold(n as u64 + 1, |seed, byte| seed * 131 + u64::from(byte));
            blobs.push(self.blob(&noise(seed, size), hot)?);
        }
        let manifest = manifest(&blobs, "layer.v1.tar+gzip");
        let image = Image { tag, manifest: Digest::sha256(manifest.as_bytes()), blobs };
        self.push(&image.by_tag(), MANIFEST_TYPE, manifest.as_bytes())?;
        if hot {
            self.file(&image.by_tag(), manifest.as_bytes())?;
            self.file(&image.by_digest(), manifest.as_bytes())?;
        }
        Ok(image)
    }

    /// An image whose layers are archives, not packed: their digests are what they unpack to.
    fn tars(&self, tag: &'static str, layers: &[usize]) -> Outcome<Image> {
        let mut layer_blobs = Vec::new();
        for (n, &size) in layers.iter().enumerate() {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(size as u64);
            header.set_mode(0o644);
            header.set_mtime(1);
            let seed = tag.bytes().fold(0xd0c4_e200 + n as u64, |seed, byte| seed * 131 % (1 << 48) + u64::from(byte));
            let content = noise(seed, size);
            archive.append_data(&mut header, format!("layer{n}"), &content[..])?;
            layer_blobs.push(self.blob(&archive.into_inner()?, false)?);
        }
        let ids: Vec<String> = layer_blobs.iter().map(|blob| format!("\"{}\"", blob.digest)).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        let mut blobs = vec![self.blob(config.as_bytes(), false)?];
        blobs.extend(layer_blobs);
        let manifest = manifest(&blobs, "layer.v1.tar");
        let image = Image { tag, manifest: Digest::sha256(manifest.as_bytes()), blobs };
        self.push(&image.by_tag(), MANIFEST_TYPE, manifest.as_bytes())?;
        Ok(image)
    }

    fn blob(&self, bytes: &[u8], hot: bool) -> Outcome<Blob> {
        let blob = Blob { digest: Digest::sha256(bytes), size: bytes.len() as u64 };
        let mut connection = Connection::open(self.upstream, PATIENCE)?;
        connection.send_with("POST", &format!("/v2/{REPOSITORY}/blobs/uploads/"), BLOB_TYPE, &[])?;
        let session = connection.head(false)?.success()?;
        let location = session.header("location").ok_or("an upload without a Location")?;
        let path = location.split_once("/v2/").map_or(location, |(_, rest)| rest);
        let joint = if path.contains('?') { '&' } else { '?' };
        self.push(&format!("/v2/{path}{joint}digest={}", blob.digest), BLOB_TYPE, bytes)?;
        if hot {
            self.file(&blob.path(), bytes)?;
        }
        Ok(blob)
    }

    fn push(&self, path: &str, media_type: &str, bytes: &[u8]) -> Outcome<()> {
        let mut connection = Connection::open(self.upstream, PATIENCE)?;
        connection.send_with("PUT", path, media_type, bytes)?;
        connection.head(false)?.success().map_err(|error| format!("pushing {path}: {error}"))?;
        Ok(())
    }

    fn file(&self, path: &str, bytes: &[u8]) -> Outcome<()> {
        let file = self.root.join(path.trim_start_matches('/'));
        file.parent().map(fs::create_dir_all).transpose()?;
        Ok(fs::write(file, bytes)?)
    }
}

fn manifest(blobs: &[Blob], layer: &str) -> String {
    let descriptor = |kind: &str, blob: &Blob| {
        let Blob { digest, size } = blob;
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","size":{size},"digest":"{digest}"}}"#)
    };
    let layers: Vec<String> = blobs[1..].iter().map(|blob| descriptor(layer, blob)).collect();
    let (config, layers) = (descriptor("config.v1+json", &blobs[0]), layers.join(","));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{config},"layers":[{layers}]}}"#)
}

/// Bytes that nothing on the way can make smaller, the same on every run (xorshift64*).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
