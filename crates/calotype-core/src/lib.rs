//! Calotype's domain: images, blobs, jobs, principals, the rules between them, and the ports through
//! which they reach the world.
//!
//! Nothing here performs I/O. The catalog, the blob stores, the key services, the clock and the
//! source of randomness are traits ([`ports`]); the crates beside this one implement them, and tests
//! replace them.

pub mod access;
pub mod app;
pub mod codes;
pub mod disk;
pub mod error;
pub mod id;
pub mod image;
pub mod image_tag;
pub mod inspect;
pub mod job;
pub mod keys;
pub mod master_key;
pub mod name;
pub mod object;
pub mod ova;
pub mod ports;
pub mod query;
pub mod size;
pub mod time;
pub mod vault;

pub use error::{Error, ErrorKind, Result};
