//! Master keys as the domain sees them: which one, on whose behalf, and what can be wrong with it.
//!
//! A master key wraps data keys. The service has one of its own; customers have theirs in a key service, under
//! whose rules they are used: a key that is disabled, on its way out, or not the caller's opens nothing.

use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, KeyId, ProjectId, UserId};
use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

/// The token that a caller showed, to be shown on to a key service. Erased when dropped.
#[derive(Clone)]
pub struct CallerToken(Zeroizing<String>);

impl CallerToken {
    /// The token with this text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Its text, for a request's header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerToken(..)")
    }
}

/// What a use of a customer's key rests on. A key service elsewhere believes the caller's own token and nothing else that
/// we could say of the caller.
#[derive(Debug, Clone)]
pub enum Authority {
    /// A request, with the token that it came with: the key service can be asked in the caller's name.
    Token(CallerToken),
    /// A request that was signed: there is nothing to show on.
    Signed,
    /// A job. Whoever asked for it had the authority then, and is not waiting any more.
    Job,
}

/// On whose behalf a customer's key is used.
#[derive(Debug, Clone)]
pub struct KeyUser {
    /// The project that the user acts in.
    pub project: ProjectId,
    /// The user.
    pub user: UserId,
    /// What the use rests on.
    pub authority: Authority,
}

/// What a customer's key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPurpose {
    /// To wrap a fresh data key.
    Seal,
    /// To unwrap a data key.
    Open,
}

/// A master key to wrap under.
#[derive(Debug, Clone)]
pub enum MasterKey {
    /// The service's own.
    Service,
    /// A customer's, for this user.
    Customer(KeyId, KeyUser),
}

/// Why a key service did not do what was asked.
#[derive(Debug)]
pub enum KeyFault {
    /// There is no such key, or none any more.
    Missing,
    /// It is disabled, waits for its material, or is about to be deleted.
    NotEnabled,
    /// The user may not use it for this.
    Forbidden,
    /// The key service takes no more requests for now.
    Throttled {
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// Something else: the service is away, a wrap is damaged, a fault of ours.
    Failed(Error),
}

/// A result of a key service.
pub type KeyResult<T> = std::result::Result<T, KeyFault>;

/// Which key of a replication a fault is about (spec 3.4): each has codes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRole {
    /// The key that the replica is to be sealed under.
    Target,
    /// The key that the source is sealed under.
    Source,
}

impl KeyFault {
    /// The refusal, with the code that spec 3.4 gives. What may pass by itself stays transient: a job waits for it.
    pub fn into_error(self, role: KeyRole) -> Error {
        let (missing, not_enabled, forbidden) = match role {
            KeyRole::Target => (ImsCode::IMG_0095, ImsCode::IMG_0097, ImsCode::IMG_0099),
            KeyRole::Source => (ImsCode::IMG_0101, ImsCode::IMG_0102, ImsCode::IMG_0103),
        };
        match self {
            Self::Missing => Error::ims(missing),
            Self::NotEnabled => Error::ims(not_enabled),
            Self::Forbidden => Error::ims(forbidden),
            Self::Throttled { retry_after } => {
                let kind = ErrorKind::Unavailable { retry_after };
                let code = ImsCode::IMG_0187;
                Error::new(kind, code.message()).with_code(code)
            }
            Self::Failed(error) => error,
        }
    }
}

impl KeyFault {
    /// The same fault; if it is damage, it is that of this blob's stored bytes.
    #[must_use]
    pub fn of_blob(self, blob: BlobId) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.of_blob(blob)),
            other => other,
        }
    }
}

impl From<Error> for KeyFault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// To who reads an image, every fault of its key is about the source.
impl From<KeyFault> for Error {
    fn from(fault: KeyFault) -> Self {
        fault.into_error(KeyRole::Source)
    }
}

/// The `cmk_id` of a request, if it names a key: what is absent or blank names none (decision D6).
///
/// # Errors
/// IMG.0095 where it is none that any key service gives out.
pub fn requested_key(text: Option<&str>) -> Result<Option<KeyId>> {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    let parsed = text.map(|text| text.to_ascii_lowercase().parse());
    parsed
        .transpose()
        .map_err(|_| Error::ims(ImsCode::IMG_0095))
}
