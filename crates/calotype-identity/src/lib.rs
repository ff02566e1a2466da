//! Who is calling: the embedded identity (domains, projects, users, roles, tokens and access keys in the catalog),
//! identity elsewhere (a Keystone, which is asked), request signatures, and the documents of the Keystone v3 API.
//!
//! A request's credential becomes a [`calotype_core::access::Principal`] through [`Embedded::authenticate`] or
//! [`Keystone::authenticate`]. What the principal may do is decided elsewhere, by [`calotype_core::access::Access`].
//! Nothing that a client says about its own rights is believed.

mod access_keys;
mod administration;
mod authenticate;
mod bootstrap;
mod elsewhere;
mod embedded;
pub mod keystone;
mod login;
#[cfg(test)]
mod memory;
mod passwords;
pub mod signature;
#[cfg(test)]
mod tests;
mod throttle;

pub use access_keys::{NewAccessKey, NewTemporaryKey};
pub use administration::{Administrator, NewProject, NewUser};
pub use authenticate::BodyDigest;
pub use bootstrap::{Bootstrapped, FirstUser, Renewal};
pub use elsewhere::{Keystone, KeystoneOptions, Standing, describe_metrics};
pub use embedded::{Embedded, Options, Ports};
pub use login::{DomainRef, Issued, Login, ProjectRef, Proof, RequestedScope, Session, UserRef};

use calotype_core::{Error, ErrorKind};

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// The refusal of a credential: the same for every reason, which goes to the log alone.
pub(crate) fn refused(reason: &'static str) -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "The request you have made requires authentication.",
    )
    .with_context(reason)
}
