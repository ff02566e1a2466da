//! Calotype's HTTP: the OpenStack Image API v2, the IMS API, the KMS API, and what surrounds them.
//!
//! A request's way: an id is given to it ([`request_id`]), its credential becomes a principal or a refusal that
//! waits for the handler to ask ([`caller`]), the handler parses into domain types and calls one use case of
//! [`calotype_core::app`], and what comes back is rendered in the family's form ([`errors`]). [`router`] puts the
//! parts together.

pub mod admin;
pub mod caller;
pub mod errors;
pub mod idempotency;
pub mod identity;
pub mod image_document;
mod image_page;
pub mod image_v1;
pub mod image_v2;
pub mod ims;
pub mod json_body;
mod json_patch;
pub mod kms;
pub mod list_query;
pub mod load;
pub mod native_list;
pub mod negotiate;
pub mod openapi;
pub mod ops;
pub mod request_id;
pub mod router;
pub mod state;

pub use router::app;
pub use state::{ApiState, Leaving};
