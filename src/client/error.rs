//! Why a registry did not give what it was asked for.

use thiserror::Error;

use crate::oci::{Digest, NoSuchPlatform};

/// Why not.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not an address.
    #[error("{0:?} is not the address of a registry; write it like http://mirror.lan:5000")]
    Url(String),
    /// The CA's file.
    #[error("the CA cannot be used: {0}")]
    Ca(String),
    /// Nobody listens there, or TLS fails.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// Nothing comes any more.
    #[error("nothing came any more; what is here by now is not fetched again")]
    Silent,
    /// It says no.
    #[error("{1} (status {0})")]
    Refused(u16, String),
    /// The answer broke off, or is none.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The image is not for that platform.
    #[error(transparent)]
    Platform(#[from] NoSuchPlatform),
    /// The content is not what its digest says.
    #[error("what came is not {0}")]
    Mismatch(Digest),
}
