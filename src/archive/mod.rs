//! Images in tar files: an OCI image layout is written front to back and read by place, and what `docker save` wrote is read,
//! too. Never speaks to a registry.

mod contents;
mod writer;

pub use contents::{ArchiveError, Contents, PackedBlob, PackedImage};
pub use writer::Archive;
