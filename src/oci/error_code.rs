//! The error codes of the distribution specification, each with its status and meaning: the one table of them.

use std::fmt;

/// A code of an OCI error body. The last two are not the specification's but distribution's; Docker understands them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each one's meaning stands in the table below")]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    Unavailable,
    Unknown,
}

use ErrorCode as E;

const TABLE: [(ErrorCode, &str, u16, &str); 16] = [
    (E::BlobUnknown, "BLOB_UNKNOWN", 404, "blob unknown to registry"),
    (E::BlobUploadInvalid, "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"),
    (E::BlobUploadUnknown, "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"),
    (E::DigestInvalid, "DIGEST_INVALID", 400, "provided digest did not match uploaded content"),
    (
        E::ManifestBlobUnknown,
        "MANIFEST_BLOB_UNKNOWN",
        404,
        "manifest references a manifest or blob unknown to registry",
    ),
    (E::ManifestInvalid, "MANIFEST_INVALID", 400, "manifest invalid"),
    (E::ManifestUnknown, "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"),
    (E::NameInvalid, "NAME_INVALID", 400, "invalid repository name"),
    (E::NameUnknown, "NAME_UNKNOWN", 404, "repository name not known to registry"),
    (E::SizeInvalid, "SIZE_INVALID", 400, "provided length did not match content length"),
    (E::Unauthorized, "UNAUTHORIZED", 401, "authentication required"),
    (E::Denied, "DENIED", 403, "requested access to the resource is denied"),
    (E::Unsupported, "UNSUPPORTED", 405, "the operation is unsupported"),
    (E::TooManyRequests, "TOOMANYREQUESTS", 429, "too many requests"),
    (E::Unavailable, "UNAVAILABLE", 503, "the upstream registry cannot be reached"),
    (E::Unknown, "UNKNOWN", 500, "an error of the server's own"),
];

impl ErrorCode {
    /// Every code there is.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        TABLE.iter().map(|row| row.0)
    }

    /// The code as it stands in the body.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status that goes with it, unless the place where it arises knows better.
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The specification's sentence for it.
    pub fn meaning(self) -> &'static str {
        self.row().3
    }

    fn row(self) -> &'static (ErrorCode, &'static str, u16, &'static str) {
        &TABLE[self as usize]
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_row() {
        for (at, code) in ErrorCode::all().enumerate() {
            assert_eq!(code as usize, at);
            assert_eq!(code.as_str().replace('_', "").to_lowercase(), format!("{code:?}").to_lowercase());
        }
    }

    #[test]
    fn the_fourteen_codes_of_the_specification_are_there() {
        let spec = "BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID \
             MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED UNSUPPORTED TOOMANYREQUESTS";
        for name in spec.split_whitespace() {
            assert!(ErrorCode::all().any(|code| code.as_str() == name), "{name}");
        }
        assert_eq!(ErrorCode::all().count(), 14 + 2);
    }
}
