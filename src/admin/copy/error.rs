//! Why an image is not copied, and how that is answered.

use hyper::StatusCode;
use thiserror::Error;

use crate::cache::{CacheError, Stale};
use crate::hosted::HostedError;
use crate::oci::{ImageNameError, ManifestError, NoPlatform, NoSuchPlatform};
use crate::routing::RouteError;

/// Manifests of one image, indexes in indexes and what refers to it included.
pub const MAX_MANIFESTS: usize = 1000;

/// Why an image is not copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// Not a name.
    #[error(transparent)]
    Name(#[from] ImageNameError),
    /// Not a platform.
    #[error(transparent)]
    Platform(#[from] NoPlatform),
    /// There is no private registry.
    #[error("there is no private registry to copy to: the configuration has no [registry]")]
    NoRegistry,
    /// Not one of our names.
    #[error("{0} is not hosted here: copy to a name that one of these patterns of [[registry.repository]] covers: {1}")]
    NotHosted(String, String),
    /// A destination by digest.
    #[error("the destination is a name and a tag: its digest follows from what is copied")]
    ToDigest,
    /// The source is nowhere.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The source cannot be had.
    #[error("{image}: {reason}")]
    Source {
        /// As it was asked for.
        image: String,
        /// Why.
        reason: CacheError,
    },
    /// One of ours cannot be had, or it cannot be put where it should go.
    #[error("{image}: {reason}")]
    Hosted {
        /// Which.
        image: String,
        /// Why.
        reason: HostedError,
    },
    /// The source is no manifest.
    #[error("{0}: {1}")]
    Manifest(String, ManifestError),
    /// There is nothing to choose from.
    #[error("{0} is an image for one platform, so there is none to choose: leave --platform out")]
    OnePlatform(String),
    /// The chosen platform is not in it.
    #[error("{image} {reason}")]
    NoSuchPlatform {
        /// The source.
        image: String,
        /// What there is.
        reason: NoSuchPlatform,
    },
    /// What refers to it is not known.
    #[error("what refers to {0} cannot be learnt now: {1}; without --referrers it can be copied")]
    Referrers(String, Stale),
    /// It has no end.
    #[error("{0} has more than {MAX_MANIFESTS} manifests")]
    TooMany(String),
    /// The cache gives them up as fast as they come.
    #[error(
        "{0} blobs were evicted from the cache before they could be linked: is cache.max_size too small for this image?"
    )]
    Evicted(usize),
}

impl CopyError {
    /// How it is answered.
    pub fn status(&self) -> StatusCode {
        match self {
            CopyError::Name(_)
            | CopyError::Platform(_)
            | CopyError::ToDigest
            | CopyError::OnePlatform(_)
            | CopyError::NoSuchPlatform { .. } => StatusCode::BAD_REQUEST,
            CopyError::NotHosted(..) => StatusCode::FORBIDDEN,
            CopyError::NoRegistry => StatusCode::CONFLICT,
            CopyError::Route(RouteError::UnknownNamespace(_)) => StatusCode::NOT_FOUND,
            CopyError::Route(RouteError::Denied(_)) => StatusCode::FORBIDDEN,
            CopyError::Source { reason, .. } => match reason {
                CacheError::Absent { .. } | CacheError::NotMirrored(_) => StatusCode::NOT_FOUND,
                CacheError::Private { .. } => StatusCode::FORBIDDEN,
                CacheError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            CopyError::Hosted { reason, .. } => match reason {
                HostedError::NoRepository | HostedError::NoManifest | HostedError::NoBlob => StatusCode::NOT_FOUND,
                HostedError::Immutable(_) => StatusCode::CONFLICT,
                HostedError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::CONFLICT,
            },
            CopyError::Referrers(..) => StatusCode::SERVICE_UNAVAILABLE,
            CopyError::Manifest(..) | CopyError::TooMany(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CopyError::Evicted(_) => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}
