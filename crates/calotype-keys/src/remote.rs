//! Key services at the other end of a network: what both adapters need of HTTP and of Keystone.

mod breaker;
pub(crate) mod endpoint;
pub(crate) mod keystone;
pub(crate) mod signer;
pub(crate) mod transport;
pub(crate) mod verdicts;

#[cfg(test)]
pub(crate) mod scripted;

pub use keystone::Login;
pub use signer::AccessKey;
pub use transport::Connection;

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
