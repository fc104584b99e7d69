//! One error for the whole registry: a code that the client is told, its status, and what is for the log alone.

use serde_json::{Value, json};
use std::io;

/// Is the result of what the registry does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what a client can do about an error. The first fourteen are the specification's codes; the rest say what has
/// no code there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
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
    /// `n` or `last` of a list is no number or no name.
    PageInvalid,
    /// A part that does not begin where the upload ends, or lies outside of a blob.
    RangeInvalid,
    /// More bytes than the registry takes.
    TooLarge,
    /// The upload is being written by another request.
    Busy,
    /// The client went silent or away.
    Interrupted,
    /// The disk is full.
    NoSpace,
    /// The upstream of a cache does not answer.
    Upstream,
    /// The disk or the store failed.
    Internal,
}

impl Code {
    /// Gives the code's text and the status that goes with it.
    pub const fn wire(self) -> (&'static str, u16) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", 404),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", 400),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", 404),
            Self::DigestInvalid => ("DIGEST_INVALID", 400),
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", 400),
            Self::ManifestInvalid => ("MANIFEST_INVALID", 400),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", 404),
            Self::NameInvalid => ("NAME_INVALID", 400),
            Self::NameUnknown => ("NAME_UNKNOWN", 404),
            Self::SizeInvalid => ("SIZE_INVALID", 400),
            Self::Unauthorized => ("UNAUTHORIZED", 401),
            Self::Denied => ("DENIED", 403),
            Self::Unsupported => ("UNSUPPORTED", 405),
            Self::TooManyRequests => ("TOOMANYREQUESTS", 429),
            Self::PageInvalid => ("PAGINATION_NUMBER_INVALID", 400),
            Self::RangeInvalid => ("RANGE_INVALID", 416),
            Self::TooLarge => ("SIZE_INVALID", 413),
            Self::Busy => ("BLOB_UPLOAD_INVALID", 409),
            Self::Interrupted => ("BLOB_UPLOAD_INVALID", 408),
            Self::NoSpace => ("UNKNOWN", 507),
            Self::Upstream => ("UNKNOWN", 502),
            Self::Internal => ("UNKNOWN", 500),
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::BlobUnknown => "blob unknown to registry",
            Self::BlobUploadInvalid => "blob upload invalid",
            Self::BlobUploadUnknown => "blob upload unknown to registry",
            Self::DigestInvalid => "provided digest did not match uploaded content",
            Self::ManifestBlobUnknown => "manifest references a blob unknown to repository",
            Self::ManifestInvalid => "manifest invalid",
            Self::ManifestUnknown => "manifest unknown",
            Self::NameInvalid => "invalid repository name",
            Self::NameUnknown => "repository name not known to registry",
            Self::SizeInvalid => "provided length did not match content length",
            Self::Unauthorized => "authentication required",
            Self::Denied => "requested access to the resource is denied",
            Self::Unsupported => "the operation is unsupported",
            Self::TooManyRequests => "too many requests",
            Self::PageInvalid => "invalid number of results requested",
            Self::RangeInvalid => "invalid content range",
            Self::TooLarge => "the content is larger than this registry takes",
            Self::Busy => "the upload is being written by another request",
            Self::Interrupted => "the client stopped sending",
            Self::NoSpace => "no space left on the registry's disk",
            Self::Upstream => "the upstream registry does not answer",
            Self::Internal => "the registry failed",
        }
    }
}

/// Is an error on its way to a client.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", .code.wire().0)]
pub struct Error {
    pub code: Code,
    /// What the client is told beside the code.
    pub detail: Value,
    /// What is for the log: the operation and its object.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error with what the client is told beside the code.
    pub fn new(code: Code, detail: impl Into<Value>) -> Self {
        Self {
            code,
            detail: detail.into(),
            cause: None,
        }
    }

    /// Makes an error of the disk; `operation` names what was done to what and stays in the log.
    pub fn io(operation: impl AsRef<str>, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
            _ => Code::Internal,
        };
        Self {
            code,
            detail: Value::Null,
            cause: Some(format!("{}: {error}", operation.as_ref()).into()),
        }
    }

    /// Gives the JSON body of the specification, `{"errors": […]}`.
    pub fn body(&self) -> Value {
        json!({"errors": [{
            "code": self.code.wire().0,
            "message": self.code.message(),
            "detail": self.detail,
        }]})
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        Self::new(code, Value::Null)
    }
}

impl From<gantry_image::Error> for Error {
    fn from(error: gantry_image::Error) -> Self {
        let code = match &error {
            gantry_image::Error::NotFound(_) => Code::BlobUnknown,
            gantry_image::Error::Conflict(_) => Code::Busy,
            gantry_image::Error::NoSpace { .. } => Code::NoSpace,
            _ => Code::Internal,
        };
        Self {
            code,
            detail: Value::Null,
            cause: Some(Box::new(error)),
        }
    }
}
