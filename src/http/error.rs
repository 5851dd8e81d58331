//! The only place where failures become statuses: every error of the floors below, its code, its status, its headers.
//!
//! The status is chosen for how clients react to it, which differs by resource (protocol.md 3.4): a manifest that cannot
//! be had is 503, because a 404 would be a lie that clients show; a layer is 404, because on a 5xx Docker tries again for
//! 75 seconds before it asks elsewhere.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderName};
use thiserror::Error;

use super::endpoint::TargetError;
use crate::cache::CacheError;
use crate::hosted::HostedError;
use crate::oci::{Digest, ErrorCode, ManifestError, NameError, Reference, RepoName};
use crate::routing::RouteError;
use crate::storage::StorageError;

/// What to tell a client who does not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The code of the body.
    pub code: ErrorCode,
    /// The status.
    pub status: StatusCode,
    /// What happened and what to do next, for a person.
    pub message: String,
    /// When to ask again.
    pub retry_after: Option<Duration>,
    /// Of a range that lies outside: how long the blob is.
    pub unsatisfiable: Option<u64>,
    /// Headers that go with it: a challenge, what is allowed, where an upload stands.
    pub headers: Vec<(HeaderName, String)>,
    /// Whether something does not work, although the status only says that a layer is not here.
    pub is_failure: bool,
}

/// What was asked for: the same failure is told differently of each.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// A manifest or an index.
    Manifest(&'a RepoName, &'a Reference),
    /// A config or a layer.
    Blob(&'a Digest),
    /// A repository's tags.
    Tags(&'a RepoName),
    /// What refers to a manifest.
    Referrers(&'a Digest),
    /// What is cached.
    Catalog,
}

impl Wanted<'_> {
    fn unknown(self) -> ErrorCode {
        match self {
            Wanted::Manifest(..) => ErrorCode::ManifestUnknown,
            Wanted::Blob(_) => ErrorCode::BlobUnknown,
            Wanted::Tags(_) | Wanted::Referrers(_) | Wanted::Catalog => ErrorCode::NameUnknown,
        }
    }
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Manifest(name, Reference::Tag(tag)) => write!(f, "{name}:{tag}"),
            Wanted::Manifest(name, Reference::Digest(digest)) => write!(f, "{name}@{digest}"),
            Wanted::Blob(digest) => write!(f, "{digest}"),
            Wanted::Tags(name) => write!(f, "the list of tags of {name}"),
            Wanted::Referrers(digest) => write!(f, "the list of referrers of {digest}"),
            Wanted::Catalog => f.write_str("the catalogue"),
        }
    }
}

/// When a client may ask again for what cannot be had now.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// When it may ask again for what is over in a moment.
const SOON: Duration = Duration::from_secs(5);

impl ApiError {
    /// An error with its code's own status.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        // The table holds valid statuses only.
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ApiError {
            code,
            status,
            message: message.into(),
            retry_after: None,
            unsatisfiable: None,
            headers: Vec::new(),
            is_failure: false,
        }
    }

    /// The answer to any method that would change something.
    pub fn read_only() -> ApiError {
        let message = "this is a mirror, and it is read-only: push to the registry that the image belongs to";
        ApiError::new(ErrorCode::Unsupported, message).with(header::ALLOW, "GET, HEAD")
    }

    /// The answer to a method that this endpoint does not have.
    pub fn method_not_allowed(allowed: &str) -> ApiError {
        let message = format!("there is no such method here: {allowed}");
        ApiError::new(ErrorCode::Unsupported, message).with(header::ALLOW, allowed)
    }

    /// The answer to someone who wants to change what is not ours.
    pub fn not_hosted(patterns: &[String]) -> ApiError {
        let message = match patterns {
            [] => "nothing is hosted here: add a [[registry.repository]] to the configuration".to_owned(),
            patterns => format!("this name is not hosted here; the names that are: {}", patterns.join(", ")),
        };
        ApiError::new(ErrorCode::Denied, message)
    }

    /// The same on the mirror's address, where nothing can be changed, ours or not.
    pub fn not_hosted_by_mirror(patterns: &[String]) -> ApiError {
        let patterns = patterns.join(", ");
        let message = format!(
            "this is the mirror's address, and it is read-only: push to the registry's own address; the names that are \
             hosted there: {patterns}"
        );
        ApiError::new(ErrorCode::Denied, message)
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> ApiError {
        self.headers.push((name, value.into()));
        self
    }

    /// With another status than its code's own.
    pub fn status(self, status: StatusCode) -> ApiError {
        ApiError { status, ..self }
    }

    /// The answer to a request that HTTP allows and a registry does not expect.
    pub fn bad_request(reason: &str) -> ApiError {
        let status = StatusCode::BAD_REQUEST;
        ApiError { status, ..ApiError::new(ErrorCode::Unsupported, reason) }
    }

    /// It is told as an absence, and is none.
    fn failure(self) -> ApiError {
        ApiError { is_failure: true, ..self }
    }

    /// The answer to a range that lies outside a blob of `size` bytes.
    pub fn unsatisfiable(size: u64) -> ApiError {
        let message = format!("no byte of that range exists: the blob has {size}");
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        ApiError { status, unsatisfiable: Some(size), ..ApiError::new(ErrorCode::SizeInvalid, message) }
    }

    /// What a failed lookup of `wanted` is told as.
    pub fn from_cache(error: CacheError, wanted: Wanted<'_>) -> ApiError {
        let message = error.to_string();
        let later =
            |message| ApiError { retry_after: Some(RETRY_AFTER), ..ApiError::new(ErrorCode::Unavailable, message) };
        match error {
            CacheError::Storage(ref cause) => {
                tracing::error!(error = %cause, "the disk fails a request");
                let message = "an error of the mirror's own: its log has the cause";
                match wanted {
                    Wanted::Blob(_) => ApiError::new(ErrorCode::BlobUnknown, message).failure(),
                    _ => ApiError::new(ErrorCode::Unknown, message),
                }
            }
            CacheError::Absent { .. } | CacheError::NotMirrored(_) => ApiError::new(wanted.unknown(), message),
            CacheError::NotAManifest { .. } => ApiError::new(ErrorCode::ManifestUnknown, message),
            CacheError::Private { .. } => ApiError::new(ErrorCode::Denied, message),
            CacheError::Unavailable { .. } | CacheError::Late => match wanted {
                Wanted::Blob(_) => {
                    ApiError::new(ErrorCode::BlobUnknown, format!("{message}; {wanted} is not cached here")).failure()
                }
                _ => later(format!("{message}; {wanted} is not cached here")),
            },
            CacheError::Incomplete { .. } => later(format!("{message}, so {wanted} is not offered")),
            CacheError::Undecided { .. } | CacheError::Mismatch { .. } | CacheError::Busy | CacheError::Abandoned => {
                match wanted {
                    Wanted::Blob(_) => ApiError::new(ErrorCode::BlobUnknown, message).failure(),
                    _ => later(message),
                }
            }
        }
    }

    /// What a hosted repository's refusal is told as.
    pub fn from_hosted(error: HostedError) -> ApiError {
        let message = error.to_string();
        let new = |code| ApiError::new(code, message.clone());
        match error {
            HostedError::NoRepository => new(ErrorCode::NameUnknown),
            HostedError::NoManifest => new(ErrorCode::ManifestUnknown),
            HostedError::NoBlob => new(ErrorCode::BlobUnknown),
            HostedError::NoUpload => new(ErrorCode::BlobUploadUnknown),
            HostedError::UploadInUse => ApiError { retry_after: Some(SOON), ..new(ErrorCode::Unavailable) },
            HostedError::TooManyUploads => {
                ApiError { retry_after: Some(RETRY_AFTER), ..new(ErrorCode::TooManyRequests) }
            }
            HostedError::OutOfOrder { .. } => {
                new(ErrorCode::BlobUploadInvalid).status(StatusCode::RANGE_NOT_SATISFIABLE)
            }
            HostedError::WrongLength => new(ErrorCode::SizeInvalid),
            HostedError::TooLarge(_) => new(ErrorCode::SizeInvalid).status(StatusCode::PAYLOAD_TOO_LARGE),
            HostedError::Body(_) => new(ErrorCode::BlobUploadInvalid),
            HostedError::WrongDigest { .. } => new(ErrorCode::DigestInvalid),
            HostedError::Manifest(ManifestError::TooLarge(_)) => {
                new(ErrorCode::SizeInvalid).status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            HostedError::Manifest(_) | HostedError::MediaType { .. } => new(ErrorCode::ManifestInvalid),
            HostedError::MissingReference(_) => new(ErrorCode::ManifestBlobUnknown),
            HostedError::Immutable(_) => new(ErrorCode::Denied),
            HostedError::IsManifest(_) => new(ErrorCode::Unsupported).status(StatusCode::BAD_REQUEST),
            HostedError::Storage(cause) => {
                tracing::error!(error = %cause, "the disk fails a request");
                match &*cause {
                    StorageError::NoSpace { .. } => {
                        let message = "the registry's disk is full: tell who runs it";
                        ApiError::new(ErrorCode::Unavailable, message).status(StatusCode::INSUFFICIENT_STORAGE)
                    }
                    StorageError::Closed => ApiError { retry_after: Some(SOON), ..new(ErrorCode::Unavailable) },
                    StorageError::Lost { .. } => new(ErrorCode::Unknown),
                    _ => ApiError::new(ErrorCode::Unknown, "an error of the registry's own: its log has the cause"),
                }
            }
        }
    }

    /// The OCI error body.
    pub fn body(&self) -> String {
        serde_json::json!({"errors": [{"code": self.code.as_str(), "message": self.message, "detail": null}]})
            .to_string()
    }
}

impl From<TargetError> for ApiError {
    fn from(error: TargetError) -> ApiError {
        let message = error.to_string();
        match error {
            TargetError::NotFound => {
                ApiError { status: StatusCode::NOT_FOUND, ..ApiError::new(ErrorCode::Unsupported, message) }
            }
            TargetError::Name(_) => ApiError::new(ErrorCode::NameInvalid, message),
            TargetError::Reference(NameError::Digest(_)) | TargetError::Digest(_) => {
                ApiError::new(ErrorCode::DigestInvalid, message)
            }
            TargetError::Reference(_) => ApiError::new(ErrorCode::ManifestInvalid, message),
            TargetError::Upload => ApiError::new(ErrorCode::BlobUploadUnknown, message),
            TargetError::TooManyTags => ApiError::bad_request(&message).status(StatusCode::URI_TOO_LONG),
            TargetError::Page | TargetError::Encoding => ApiError::bad_request(&message),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> ApiError {
        let message = error.to_string();
        match error {
            // 404, so that the client goes to the real registry.
            RouteError::UnknownNamespace(_) => ApiError::new(ErrorCode::NameUnknown, message),
            RouteError::Denied(_) => ApiError::new(ErrorCode::Denied, message),
        }
    }
}
