//! Key services, and the one source of randomness.
//!
//! [`ServiceKey`] is the service's own master key: a file of mode 0600 or a text from the environment.
//! It wraps data keys and seals short secrets, each purpose under a subkey of its own. [`Kms`] and [`Barbican`] are
//! customers' keys in services elsewhere, over one core of HTTP (`remote`); [`KeyServices`] sends each key to the service
//! that has it. [`SystemEntropy`] is the only module that asks the system for random bits; everything else asks the
//! `Entropy` port.
//!
//! No key, wrapped or not, is ever logged, and no error text holds any part of one.

mod barbican;
mod entropy;
mod file;
mod kms_client;
mod remote;
mod router;
mod scripted;
mod service;

pub use barbican::{Barbican, BarbicanOptions};
pub use entropy::SystemEntropy;
pub use kms_client::{ContextField, Kms, KmsCredential, KmsOptions};
pub use remote::{AccessKey, Authorize, Connection, Login};
pub use router::{CustomersKeys, KeyServices};
pub use scripted::{SERVICE, ScriptedKeys, Wrong};
pub use service::ServiceKey;
