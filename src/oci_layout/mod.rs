//! An OCI image layout (image-spec, image-layout.md) as a directory: images as files that other tools read, too.
//!
//! Knows nothing of repositories, servers or backups: an index of descriptors, and content by its digest. Content gets its
//! name only when it was found right, and an index is replaced only when all that was written before it is durable.

mod directory;
mod error;
mod index;

pub use directory::{Directory, Incoming, Removed};
pub use error::LayoutError;
pub use index::{Index, REF_NAME};
