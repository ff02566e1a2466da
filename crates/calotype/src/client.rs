//! The HTTP client: Keystone v3 login, the catalog of services, and the calls of the image and key services.
//!
//! Guarantees: a request that may be repeated is repeated on 503 and on a broken connection, a
//! bounded number of times, after what `Retry-After` asks or a growing, jittered wait; a POST carries
//! an `Idempotency-Key` that stays the same over its repetitions; an expired token is replaced once;
//! redirects are not followed, so that a token goes nowhere else; a loopback address is reached
//! without a proxy. Does not: cache tokens between runs.

mod calls;
mod download;
mod keys;
mod login;
mod members;
mod tags;
mod transport;

pub(crate) use calls::{JobWait, Upload, encode};
pub(crate) use download::Target;
pub(crate) use login::Session;
pub(crate) use transport::{Call, RetryPolicy};

#[cfg(test)]
mod tests;
