//! Key services at the other end of a network: what both adapters need beside [`calotype_remote`].

pub(crate) mod signer;
pub(crate) mod verdicts;

use std::time::Duration;

use calotype_core::Error;
use calotype_remote::Names;

pub use signer::AccessKey;

/// Who has to agree to a use of a customer's key, beside the key's own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Authorize {
    /// The service and the caller: the key service is asked with the caller's own token too. A signed request has none,
    /// and is refused. A job relies on what was asked when it was accepted.
    #[default]
    Caller,
    /// The service alone: for a key service that does not know the callers.
    Service,
}

/// How a part of a key service is spoken of.
pub(crate) const fn names(name: &'static str) -> Names {
    let away = "The key service is temporarily unavailable.";
    Names { name, away }
}

/// Any key service.
const ANY: Names = names("the key service");

/// The key service can't be used now. `context` goes to the log.
pub(crate) fn unavailable(retry_after: Duration, context: impl Into<String>) -> Error {
    ANY.unavailable(retry_after, context)
}

/// As [`unavailable`], where nobody knows for how long.
pub(crate) fn unusable(context: impl Into<String>) -> Error {
    ANY.unusable(context)
}
