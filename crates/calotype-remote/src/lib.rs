//! Services at the other end of a network: HTTP with bounded time ([`Endpoint`]), and the service's own login at a
//! Keystone ([`Session`]).
//!
//! Key services and identity stand on it, and stores on its [`client`]. It decides nothing: what an answer means is its
//! caller's matter. [`scripted`] is for tests.

mod breaker;
mod endpoint;
mod keystone;
pub mod scripted;
mod transport;

pub use endpoint::{Endpoint, Names};
pub use keystone::{Granted, Login, LoginScope, Session, authority, http_url, json_text};
pub use transport::{Answer, BODY_LIMIT, Connection, Http, Request, Transport, Trouble, client};
