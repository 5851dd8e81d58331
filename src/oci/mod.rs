//! The words of the OCI specifications: digests, names, media types, descriptors, manifests, ranges, error codes.
//!
//! Words only: nothing in here waits, opens a file, speaks HTTP, or knows what time it is. A value of one of these
//! types is valid, and none of them can name a place outside the directory that it is joined to.

pub mod byte_range;
pub mod choice;
pub mod descriptor;
pub mod digest;
pub mod error_code;
pub mod image_name;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod referrer;

pub use byte_range::{ByteRange, RangeHeader};
pub use choice::{NoSuchPlatform, chosen, narrowed};
pub use descriptor::{Descriptor, NoPlatform, Platform};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error_code::ErrorCode;
pub use image_name::{ImageName, ImageNameError};
pub use manifest::{Manifest, ManifestError};
pub use media_type::MediaType;
pub use name::{NameError, Reference, Registry, RepoName, Repository, Tag};
pub use referrer::Referrer;
