//! Key services, and the one source of randomness.
//!
//! [`ServiceKey`] is the service's own master key: a file of mode 0600 or a text from the environment.
//! It wraps data keys and seals short secrets, each purpose under a subkey of its own. [`SystemEntropy`]
//! is the only module that asks the system for random bits; everything else asks the `Entropy` port.
//!
//! No key, wrapped or not, is ever logged, and no error text holds any part of one.

mod entropy;
mod file;
mod scripted;
mod service;

pub use entropy::SystemEntropy;
pub use scripted::{SERVICE, ScriptedKeys, Wrong};
pub use service::ServiceKey;
