//! The OpenStack Image API v2 over the real catalog and real sealed blobs, spoken to without a socket.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what is not as it must be is a failure"
)]

mod harness;

mod image_bytes;
mod image_records;
mod sharing;
mod versions_and_schemas;
