//! The client's side of stores that speak S3: OBS, Ceph's RGW, Garage, AWS.
//!
//! [`Client`] is how one is reached, and as whom; [`Told`] is what a refusal of it says. Over them, [`Bucket`] is a
//! bucket of the service's own, which stays usable when the store does not: it tries again, gives up in time, and does not
//! ask a store that is away.
//!
//! # Guarantees
//! No redirect is followed: it would take signed requests elsewhere, and means that the bucket is in another region. No
//! proxy is taken from the environment. Credentials come from the options alone. Requests are signed
//! with the time of a [`Clock`](calotype_core::ports::Clock), whatever this machine's own says.

mod breaker;
mod bucket;
mod client;
mod sign;
mod told;
mod tries;
mod uploads;

pub use bucket::{Bucket, Entry, Limits};
pub use client::{AccessKey, Client, Connection, S3Options};
pub use told::{Told, away};
pub use tries::describe_metrics;
