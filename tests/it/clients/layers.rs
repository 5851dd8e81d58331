//! The layers that the rig's images are made of: deterministic tars, plain or gzip.
//!
//! Deterministic for one busybox: names, modes, times and order are fixed, so that a digest in a failure can be compared.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Bytes and their name.
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { digest: digest_of(&bytes), bytes })
    }
}

/// How a layer's tar is stored, which its media type must say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
}

pub(super) struct Layer {
    pub(super) blob: Arc<Blob>,
    pub(super) packing: Packing,
    /// The digest of the unpacked tar, by which a client checks what it unpacked.
    pub(super) diff_id: String,
}

/// One that is over 100 MB on the wire.
const BALLAST_BYTES: usize = 104 * 1024 * 1024;

pub(super) const BALLAST_PATH: &str = "ballast.bin";

pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Enough of a system for `docker run` to print something.
pub(super) fn busybox() -> Layer {
    let program = fs::read("/bin/busybox").expect("no /bin/busybox: apt-get install busybox-static");
    let mut tar = Builder::new(Vec::new());
    folder(&mut tar, "bin");
    file(&mut tar, "bin/busybox", 0o755, &program);
    for name in ["cat", "sh", "sha256sum"] {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    layer(tar, Packing::Gzip)
}

pub(super) fn text(path: &str, text: &str, packing: Packing) -> Layer {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, path, 0o644, text.as_bytes());
    layer(tar, packing)
}

/// The large layer, and the SHA-256 of the file in it in hexadecimal.
pub(super) fn ballast() -> (Layer, String) {
    let noise = noise(BALLAST_BYTES);
    let mut tar = Builder::new(Vec::with_capacity(BALLAST_BYTES + 4096));
    file(&mut tar, BALLAST_PATH, 0o644, &noise);
    (layer(tar, Packing::Gzip), hex(&noise))
}

/// Bytes that gzip cannot make smaller, the same on every run (xorshift64*).
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    for chunk in bytes.chunks_exact_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        chunk.copy_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes
}

fn layer(tar: Builder<Vec<u8>>, packing: Packing) -> Layer {
    let plain = tar.into_inner().unwrap();
    let diff_id = digest_of(&plain);
    let bytes = match packing {
        Packing::Plain => plain,
        Packing::Gzip => {
            let mut gzip = GzEncoder::new(Vec::with_capacity(plain.len()), Compression::fast());
            gzip.write_all(&plain).unwrap();
            gzip.finish().unwrap()
        }
    };
    Layer { blob: Blob::new(bytes), packing, diff_id }
}

fn folder(tar: &mut Builder<Vec<u8>>, path: &str) {
    tar.append_data(&mut header(EntryType::Directory, 0o755, 0), path, std::io::empty()).unwrap();
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) {
    let size = u64::try_from(bytes.len()).unwrap();
    tar.append_data(&mut header(EntryType::Regular, mode, size), path, bytes).unwrap();
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
