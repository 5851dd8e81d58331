//! The images of the rig, one of each shape that clients meet: a Docker manifest, an OCI manifest, a Docker manifest
//! list, an OCI index with an attestation.
//!
//! Made here and not by a build tool, so that every media type and digest in them is known and chosen.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::layers::{self, Blob, Layer, Packing, digest_of};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Fixed, so that digests are.
const CREATED: &str = "2024-01-01T00:00:00Z";

pub(super) struct Manifest {
    pub(super) media_type: &'static str,
    pub(super) digest: String,
    pub(super) bytes: Vec<u8>,
    /// Config first, then layers; none for an index.
    pub(super) blobs: Vec<Arc<Blob>>,
}

impl Manifest {
    pub(super) fn blob_digests(&self) -> impl Iterator<Item = String> {
        self.blobs.iter().map(|blob| blob.digest.clone())
    }
}

pub(super) struct Image {
    pub(super) repository: &'static str,
    pub(super) tag: &'static str,
    /// What the tag names.
    pub(super) top: Manifest,
    /// What an index lists. The first is the one for this machine.
    pub(super) children: Vec<Manifest>,
    /// What running it prints.
    pub(super) prints: String,
}

impl Image {
    /// In full, because only docker adds `docker.io` by itself, and only docker asks a mirror for nothing but that.
    pub(super) fn by_tag(&self) -> String {
        format!("docker.io/{}:{}", self.repository, self.tag)
    }

    pub(super) fn by_digest(&self) -> String {
        format!("docker.io/{}@{}", self.repository, self.top.digest)
    }

    pub(super) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.children.iter().chain([&self.top])
    }

    /// The manifest that a client on this machine arrives at.
    pub(super) fn local(&self) -> &Manifest {
        self.children.first().unwrap_or(&self.top)
    }

    pub(super) fn manifest_path(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository)
    }

    /// The statements about how the image was built, which no client before Docker 29 asks for.
    pub(super) fn attestation(&self) -> Option<&Manifest> {
        self.children.iter().find(|child| String::from_utf8_lossy(&child.bytes).contains("in-toto"))
    }
}

/// All images, made once: the large layer takes a moment.
pub(super) fn all() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| vec![base(), app(), multi(), attested()])
}

pub(super) fn named(repository: &str) -> &'static Image {
    all().iter().find(|image| image.repository == repository).unwrap()
}

fn base() -> Image {
    let greeting = "the base speaks";
    let layers = [layers::busybox(), greeting_layer(greeting)];
    let top = image(Dialect::Docker, here(), &["cat", "/greeting"], &layers);
    Image { repository: "library/base", tag: "1", top, children: Vec::new(), prints: greeting.to_owned() }
}

/// From plain tars, one of them not compressed at all, one large; running it hashes the large one.
fn app() -> Image {
    let (ballast, sum) = layers::ballast();
    let readme = layers::text("README", "several layers\n", Packing::Plain);
    let layers = [layers::busybox(), greeting_layer("the app speaks"), readme, ballast];
    let path = format!("/{}", layers::BALLAST_PATH);
    let top = image(Dialect::Oci, here(), &["sha256sum", &path], &layers);
    Image { repository: "org/app", tag: "v1", top, children: Vec::new(), prints: format!("{sum}  {path}") }
}

/// Both platforms hold this machine's busybox; a client that chose the wrong one is told by the greeting.
fn multi() -> Image {
    let children: Vec<Manifest> = [here(), elsewhere()]
        .map(|platform| {
            let layers = [layers::busybox(), greeting_layer(&format!("made for {platform}"))];
            image(Dialect::Docker, platform, &["cat", "/greeting"], &layers)
        })
        .into();
    let list = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST,
        "manifests": [with_platform(&children[0], here()), with_platform(&children[1], elsewhere())],
    });
    let top = manifest(DOCKER_LIST, &list, Vec::new());
    Image { repository: "org/multi", tag: "v1", top, children, prints: format!("made for {}", here()) }
}

/// What `docker buildx build` has pushed since 2023.
fn attested() -> Image {
    let greeting = "the attested speaks";
    let layers = [layers::busybox(), greeting_layer(greeting)];
    let runnable = image(Dialect::Oci, here(), &["cat", "/greeting"], &layers);
    let attestation = attestation(&runnable);
    let mut about = descriptor(attestation.media_type, &attestation.digest, attestation.bytes.len());
    about["annotations"] = json!({
        "vnd.docker.reference.digest": runnable.digest,
        "vnd.docker.reference.type": "attestation-manifest",
    });
    about["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [with_platform(&runnable, here()), about],
    });
    let top = manifest(OCI_INDEX, &index, Vec::new());
    let children = vec![runnable, attestation];
    Image { repository: "org/attested", tag: "v1", top, children, prints: greeting.to_owned() }
}

fn attestation(subject: &Manifest) -> Manifest {
    let hex = subject.digest.trim_start_matches("sha256:");
    let statement = Blob::new(bytes(&json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{ "name": "pkg:docker/org/attested@v1", "digest": { "sha256": hex } }],
        "predicate": { "builder": { "id": "larder's test rig" } },
    })));
    let config = Blob::new(bytes(&json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [statement.digest] },
    })));
    let mut layer = descriptor("application/vnd.in-toto+json", &statement.digest, statement.bytes.len());
    layer["annotations"] = json!({ "in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2" });
    let value = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config.digest, config.bytes.len()),
        "layers": [layer],
    });
    manifest(OCI_MANIFEST, &value, vec![config, statement])
}

/// In whose media types a manifest speaks.
#[derive(Clone, Copy)]
enum Dialect {
    Docker,
    Oci,
}

impl Dialect {
    fn manifest(self) -> &'static str {
        match self {
            Self::Docker => DOCKER_MANIFEST,
            Self::Oci => OCI_MANIFEST,
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.container.image.v1+json",
            Self::Oci => OCI_CONFIG,
        }
    }

    fn layer(self, packing: Packing) -> &'static str {
        match (self, packing) {
            (Self::Docker, Packing::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Docker, Packing::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Oci, Packing::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Packing::Plain) => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

fn image(dialect: Dialect, architecture: &str, command: &[&str], layers: &[Layer]) -> Manifest {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let history: Vec<Value> =
        layers.iter().map(|_| json!({ "created": CREATED, "created_by": "larder's test rig" })).collect();
    let config = Blob::new(bytes(&json!({
        "architecture": architecture,
        "os": "linux",
        "created": CREATED,
        // ctr sets no PATH of its own.
        "config": { "Env": ["PATH=/bin"], "Cmd": command },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })));
    let listed: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor(dialect.layer(layer.packing), &layer.blob.digest, layer.blob.bytes.len()))
        .collect();
    let value = json!({
        "schemaVersion": 2,
        "mediaType": dialect.manifest(),
        "config": descriptor(dialect.config(), &config.digest, config.bytes.len()),
        "layers": listed,
    });
    let blobs = [config].into_iter().chain(layers.iter().map(|layer| Arc::clone(&layer.blob))).collect();
    manifest(dialect.manifest(), &value, blobs)
}

fn manifest(media_type: &'static str, value: &Value, blobs: Vec<Arc<Blob>>) -> Manifest {
    let bytes = bytes(value);
    Manifest { media_type, digest: digest_of(&bytes), bytes, blobs }
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn with_platform(manifest: &Manifest, architecture: &str) -> Value {
    let mut value = descriptor(manifest.media_type, &manifest.digest, manifest.bytes.len());
    value["platform"] = json!({ "architecture": architecture, "os": "linux" });
    value
}

fn greeting_layer(greeting: &str) -> Layer {
    layers::text("greeting", &format!("{greeting}\n"), Packing::Gzip)
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap()
}

fn here() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn elsewhere() -> &'static str {
    if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" }
}
