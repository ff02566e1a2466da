//! The one domain error.
//!
//! It has two sides. The *message* is written for the caller and may be shown to it. The *context* is
//! for the log: a source error, a path, a statement. Nothing of the context can reach a client,
//! because the API layer only ever asks for [`Error::kind`], [`Error::code`] and [`Error::message`],
//! and [`std::fmt::Display`] shows the message alone. A fault of ours has a fixed message.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::codes::{ImsCode, KmsCode};
use crate::id::BlobId;

/// A result whose error is the domain's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and so what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request can't be understood or breaks a rule.
    InvalidRequest,
    /// Nobody, or nobody that we know, is calling.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing, or none that the caller may see.
    NotFound,
    /// The thing is not in a state that allows this, or another change came first.
    Conflict,
    /// The thing existed and was deleted while the request ran.
    Gone,
    /// The bytes or the body are larger than allowed.
    TooLarge,
    /// The media type is not one that is understood here.
    UnsupportedMediaType,
    /// The requested range lies outside the bytes.
    RangeNotSatisfiable,
    /// The request's body stood still for too long.
    TimedOut,
    /// A quota or a concurrency limit is reached.
    LimitReached,
    /// The caller makes more requests, or does more at once, than it may now.
    TooManyRequests {
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// A part that we need is away; the same request may succeed later.
    Unavailable {
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// The storage has no room left.
    StorageFull,
    /// Stored bytes are not authentic or are missing. Never retried, never served.
    Damaged,
    /// A fault of ours.
    Internal,
}

/// The domain error: a kind, the IMS or KMS code where one is due, a message for the caller, and a context
/// for the log. See the module's documentation.
pub struct Error {
    kind: ErrorKind,
    code: Option<ImsCode>,
    kms_code: Option<KmsCode>,
    message: String,
    context: Option<Box<dyn StdError + Send + Sync>>,
    damaged: Option<BlobId>,
}

impl Error {
    /// An error of this kind with a message for the caller.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            kms_code: None,
            message: message.into(),
            context: None,
            damaged: None,
        }
    }

    /// An IMS refusal with the table's own message.
    pub fn ims(code: ImsCode) -> Self {
        let kind = match code {
            ImsCode::IMG_0026 => ErrorKind::Forbidden,
            ImsCode::IMG_0015 | ImsCode::IMG_0060 | ImsCode::IMG_0088 => ErrorKind::LimitReached,
            ImsCode::IMG_0023 | ImsCode::IMG_0027 => ErrorKind::NotFound,
            _ => ErrorKind::InvalidRequest,
        };
        Self {
            kind,
            code: Some(code),
            kms_code: None,
            message: code.message().to_owned(),
            context: None,
            damaged: None,
        }
    }

    /// A refusal of the KMS API with the table's own message.
    pub fn kms(code: KmsCode) -> Self {
        let kind = match code {
            KmsCode::KMS_0409 | KmsCode::KMS_1105 | KmsCode::KMS_2404 => ErrorKind::LimitReached,
            _ => match code.status() {
                401 => ErrorKind::Unauthenticated,
                403 => ErrorKind::Forbidden,
                404 => ErrorKind::NotFound,
                _ => ErrorKind::InvalidRequest,
            },
        };
        Self::new(kind, code.message()).with_kms_code(code)
    }

    /// The request breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// There is nothing there that the caller may see.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The state does not allow it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// A fault of ours. `context` goes to the log, never to the caller.
    pub fn internal(context: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind: ErrorKind::Internal,
            code: None,
            kms_code: None,
            message: "An internal error occurred.".to_owned(),
            context: Some(context.into()),
            damaged: None,
        }
    }

    /// What the system says where bytes are read or written. `full` tells the caller what has no room.
    pub fn storage(error: std::io::Error, full: &str) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
                Self::new(ErrorKind::StorageFull, full).with_context(error)
            }
            Io::OutOfMemory
            | Io::Interrupted
            | Io::TimedOut
            | Io::WouldBlock
            | Io::StaleNetworkFileHandle
            | Io::NotConnected
            | Io::NetworkDown
            | Io::NetworkUnreachable
            | Io::HostUnreachable => Self::unavailable(error),
            _ => Self::internal(error),
        }
    }

    /// A part that we need is away. `context` goes to the log, never to the caller.
    pub fn unavailable(context: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind: ErrorKind::Unavailable {
                retry_after: Duration::from_secs(2),
            },
            code: None,
            kms_code: None,
            message: "The service is temporarily unavailable.".to_owned(),
            context: Some(context.into()),
            damaged: None,
        }
    }

    /// Stored bytes do not authenticate or are missing. `context` goes to the log.
    pub fn damaged(context: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind: ErrorKind::Damaged,
            code: Some(ImsCode::IMG_0057),
            kms_code: None,
            message: "The image's stored data is damaged.".to_owned(),
            context: Some(context.into()),
            damaged: None,
        }
    }

    /// The same error; if it is damage, it is that of this blob's stored bytes, unless they were said to be another's.
    #[must_use]
    pub fn of_blob(mut self, blob: BlobId) -> Self {
        if self.kind == ErrorKind::Damaged {
            self.damaged.get_or_insert(blob);
        }
        self
    }

    /// The blob whose stored bytes are known to be damaged. None where it is something else that is, such as a wrap that
    /// is not among them.
    pub const fn damaged_blob(&self) -> Option<BlobId> {
        self.damaged
    }

    /// The same error with an IMS code.
    #[must_use]
    pub fn with_code(mut self, code: ImsCode) -> Self {
        self.code = Some(code);
        self
    }

    /// The same error with a code of the KMS API.
    #[must_use]
    pub fn with_kms_code(mut self, code: KmsCode) -> Self {
        self.kms_code = Some(code);
        self
    }

    /// The same error with a context for the log.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// What kind of error it is.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The IMS code, where the domain knows it. The API layer chooses one for the others.
    pub const fn code(&self) -> Option<ImsCode> {
        self.code
    }

    /// The code of the KMS API, where the domain knows it. The API layer chooses one for the others.
    pub const fn kms_code(&self) -> Option<KmsCode> {
        self.kms_code
    }

    /// The text for the caller. Holds no path, statement, secret or id that the caller did not send.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether doing the same again later may succeed without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable { .. })
    }

    /// The whole chain on one line, for the log of the place that handles the error.
    pub fn chain(&self) -> String {
        use fmt::Write as _;
        let mut text = self.message.clone();
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            let _ = write!(text, ": {error}");
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(code) = self.code {
            write!(f, " {code}")?;
        }
        if let Some(code) = self.kms_code {
            write!(f, " {code}")?;
        }
        write!(f, ": {}", self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.context {
            Some(context) => Some(context.as_ref()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_in_the_chain_and_not_in_what_a_caller_sees() {
        let error = Error::internal("password=canary in /srv/secret");
        assert!(error.chain().contains("canary"));
        assert!(!error.to_string().contains("canary"));
        assert!(!error.message().contains("canary"));
    }
}
