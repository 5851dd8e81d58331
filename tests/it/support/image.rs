//! Images for tests: the same number always makes the same bytes, and two numbers never make the same blob.
//!
//! Layers of [`Image::oci`] and [`Image::docker`] are noise of an exact size; only [`Image::unpackable`] has layers that
//! a container engine can unpack.

use bytes::Bytes;
use larder::oci::{Digest, MediaType};
use serde_json::{Value, json};

const ARCHITECTURES: [&str; 6] = ["amd64", "arm64", "s390x", "ppc64le", "riscv64", "386"];

/// A manifest with everything below it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's media type.
    pub media_type: MediaType,
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The config, then the layers. Empty for an index.
    pub blobs: Vec<Bytes>,
    /// An index's manifests, attestations included.
    pub children: Vec<Image>,
    attests: Option<Digest>,
}

impl Image {
    /// An OCI image of two small layers.
    pub fn small(seed: u64) -> Image {
        Image::oci(seed, &[1500, 700])
    }

    /// An OCI image with layers of these sizes.
    pub fn oci(seed: u64, layers: &[usize]) -> Image {
        Image::of_noise(MediaType::OciManifest, seed, layers)
    }

    /// A Docker schema 2 image with layers of these sizes.
    pub fn docker(seed: u64, layers: &[usize]) -> Image {
        Image::of_noise(MediaType::DockerManifest, seed, layers)
    }

    /// An OCI image whose one layer is a gzipped tar with one file, `/seed-N`, and whose config fits it.
    pub fn unpackable(seed: u64) -> Image {
        let mut tar = tar::Builder::new(Vec::new());
        let content = noise(seed, 3000);
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("seed-{seed}"), content.as_ref()).unwrap();
        let tar = tar.into_inner().unwrap();
        let config = config(seed, &[Digest::sha256(&tar)]);
        Image::assemble(MediaType::OciManifest, config, vec![gzip(&tar)], None)
    }

    /// An OCI index of `images`, each for another architecture, `linux/amd64` first.
    pub fn index(images: &[Image]) -> Image {
        Image::list(MediaType::OciIndex, images)
    }

    /// A Docker manifest list of `images`, each for another architecture, `linux/amd64` first.
    pub fn docker_list(images: &[Image]) -> Image {
        Image::list(MediaType::DockerList, images)
    }

    /// An OCI index as BuildKit makes it: every image is followed by its attestation.
    pub fn index_with_attestations(images: &[Image]) -> Image {
        let mut children = images.to_vec();
        children.extend(images.iter().map(Image::attestation));
        Image::list(MediaType::OciIndex, &children)
    }

    /// An artifact about `subject`, which registries list among its referrers.
    pub fn referrer(seed: u64, artifact_type: &str, subject: &Image) -> Image {
        let blobs = vec![Bytes::from_static(b"{}"), noise(seed, 300)];
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OciManifest.as_str(),
            "artifactType": artifact_type,
            "config": descriptor("application/vnd.oci.empty.v1+json", &blobs[0]),
            "layers": [descriptor("application/octet-stream", &blobs[1])],
            "subject": subject.descriptor(),
            "annotations": {"test.seed": seed.to_string()},
        });
        Image::from_json(MediaType::OciManifest, &manifest, blobs)
    }

    /// An image of these layers for linux/amd64; `n` tells its config from others.
    pub fn of_layers(n: usize, layers: Vec<Bytes>) -> Image {
        let config = Bytes::from(json!({"architecture": "amd64", "os": "linux", "n": n}).to_string());
        let descriptor = |media_type: &str, content: &Bytes| json!({"mediaType": media_type, "size": content.len(), "digest": Digest::sha256(content).to_string()});
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OciManifest.as_str(),
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|content| descriptor(layer, content)).collect::<Vec<_>>(),
        });
        Image::from_json(MediaType::OciManifest, &manifest, std::iter::once(config).chain(layers).collect())
    }

    /// A manifest that a test wrote itself.
    pub fn from_json(media_type: MediaType, manifest: &Value, blobs: Vec<Bytes>) -> Image {
        Image { media_type, manifest: manifest.to_string().into(), blobs, children: Vec::new(), attests: None }
    }

    /// Whether it is an attestation of another image.
    pub fn attests(&self) -> bool {
        self.attests.is_some()
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    /// The digests of config and layers, in the manifest's order.
    pub fn blob_digests(&self) -> Vec<Digest> {
        self.blobs.iter().map(|blob| Digest::sha256(blob)).collect()
    }

    /// Layer `n`, from 0.
    pub fn layer(&self, n: usize) -> (Digest, Bytes) {
        let layer = self.blobs[n + 1].clone();
        (Digest::sha256(&layer), layer)
    }

    /// A descriptor of the manifest.
    pub fn descriptor(&self) -> Value {
        descriptor(self.media_type.as_str(), &self.manifest)
    }

    fn of_noise(media_type: MediaType, seed: u64, sizes: &[usize]) -> Image {
        let layer = |(n, &size): (usize, &usize)| noise(seed.wrapping_mul(1000).wrapping_add(n as u64), size);
        let layers: Vec<Bytes> = sizes.iter().enumerate().map(layer).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        Image::assemble(media_type, config(seed, &diff_ids), layers, None)
    }

    fn assemble(media_type: MediaType, config: Bytes, layers: Vec<Bytes>, attests: Option<Digest>) -> Image {
        let (config_type, layer_type) = match (media_type, attests) {
            (_, Some(_)) => ("application/vnd.oci.image.config.v1+json", "application/vnd.in-toto+json"),
            (MediaType::DockerManifest, None) => {
                ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
            }
            (_, None) => ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type.as_str(),
            "config": descriptor(config_type, &config),
            "layers": layers.iter().map(|layer| descriptor(layer_type, layer)).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(config).chain(layers).collect();
        Image { attests, ..Image::from_json(media_type, &manifest, blobs) }
    }

    fn attestation(&self) -> Image {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://slsa.dev/provenance/v0.2",
            "subject": [{"digest": {"sha256": self.digest().hex()}}],
        });
        let layer = Bytes::from(statement.to_string());
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&layer).to_string()]},
        });
        Image::assemble(MediaType::OciManifest, config.to_string().into(), vec![layer], Some(self.digest()))
    }

    fn list(media_type: MediaType, children: &[Image]) -> Image {
        let entry = |(n, child): (usize, &Image)| {
            let mut entry = child.descriptor();
            match child.attests {
                None => entry["platform"] = json!({"os": "linux", "architecture": ARCHITECTURES[n]}),
                Some(image) => {
                    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
                    entry["annotations"] = json!({
                        "vnd.docker.reference.type": "attestation-manifest",
                        "vnd.docker.reference.digest": image.to_string(),
                    });
                }
            }
            entry
        };
        let manifests: Vec<Value> = children.iter().enumerate().map(entry).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type.as_str(), "manifests": manifests});
        Image { children: children.to_vec(), ..Image::from_json(media_type, &manifest, Vec::new()) }
    }
}

/// `size` bytes that no compression shortens, always the same for one `seed`.
pub fn noise(seed: u64, size: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state ^ seed.rotate_left(32);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// `bytes`, gzipped.
pub fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap().into()
}

fn config(seed: u64, diff_ids: &[Digest]) -> Bytes {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/seed"], "Labels": {"seed": seed.to_string()}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(Digest::to_string).collect::<Vec<_>>()},
    });
    config.to_string().into()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "size": content.len(), "digest": Digest::sha256(content).to_string()})
}
