//! Key services, and the one source of randomness.
//!
//! [`EmbeddedKeys`] is the service's own key service: master keys in the catalog, the service's and its customers',
//! wrapped under root keys. [`Kms`] and [`Barbican`] are customers' keys in services elsewhere, over `calotype-remote`;
//! [`KeyServices`] sends each key to the service that has it. [`SystemEntropy`] is the only module that asks the system
//! for random bits; everything else asks the `Entropy` port. [`ServiceKey`] and [`ScriptedKeys`] are for tests.
//!
//! No key, wrapped or not, is ever logged, and no error text holds any part of one.

mod barbican;
mod cipher;
mod customers;
mod embedded;
mod entropy;
mod file;
mod keyring;
pub mod kms;
mod kms_client;
mod remote;
mod ring;
mod roots;
mod router;
mod scripted;
mod service;

pub use barbican::{Barbican, BarbicanOptions, Unmet};
pub use embedded::{EmbeddedKeys, Options, Ports};
pub use entropy::SystemEntropy;
pub use kms_client::{ContextField, Kms, KmsCredential, KmsOptions};
pub use remote::{AccessKey, Authorize};
pub use roots::{RootSource, RootState, RootStatus};
pub use router::{CustomersKeys, KeyServices};
pub use scripted::{SERVICE, ScriptedKeys, Wrong};
pub use service::ServiceKey;
