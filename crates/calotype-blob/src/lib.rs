//! Sealed blobs: an image's bytes, always encrypted and authenticated, in one of several stores.
//!
//! [`SealedBlobs`] implements the domain's `Blobs` port. A blob is cut into *segments*, each of them one
//! FLOE message whose *pages* can be opened one by one ([`seal`]); a *manifest* ([`manifest`]) says what
//! is where and is the commit record. Where the ciphertext lies is a [`store::BlobStore`]'s matter: a
//! directory ([`store::FileStore`]) or memory ([`store::MemoryStore`]).
//!
//! The decision and its reasons are in `docs/adr/0003-sealed-blobs-on-floe.md`.

mod blobs;
pub mod conformance;
mod data_keys;
mod digest;
pub mod manifest;
mod outgoing;
mod read;
mod reseal;
pub mod seal;
mod share;
pub mod store;
mod stores;
mod threads;
mod write;

pub use blobs::{ResealOptions, SealOptions, SealedBlobs};
pub use stores::Stores;
