//! The ports: what the domain needs from the world, as traits that other crates implement.

mod blobs;
mod catalog;
mod directory;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Result;
use crate::id::BlobId;
use crate::time::Timestamp;

pub use blobs::{BlobCheck, BlobFacts, BlobReader, Blobs, ByteStream, DigestChoice, WriteOptions};
pub use catalog::{
    AuditEvent, BlobRecord, BlobState, Catalog, EnterpriseProject, ImageLimit, Images, Jobs,
    Ledger, NewReplica, Reconcile, SeenImage, StoredAnswer, Trail, Usage, Violation,
};
pub use directory::{
    AccessKey, Assignment, AssignmentTarget, Directory, DomainRecord, ProjectRecord, RoleRecord,
    TemporaryKey, TokenRecord, UserRecord,
};

/// The one clock.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;
}

/// The one source of randomness, cryptographically strong.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random bits.
    fn fill(&self, bytes: &mut [u8]);
}

/// A 256-bit data key: the key of one blob. Erased from memory when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// The key with these bits.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The key's bits, for a cipher.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// A data key under a master key: safe to store.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WrappedKey {
    /// The master key's id: `service` for the service's own.
    pub master_key: String,
    /// The master key's version.
    pub version: u32,
    /// The sealed data key, in the key service's own form.
    #[serde(with = "hex")]
    pub sealed: Vec<u8>,
}

/// A key service: it keeps master keys and wraps data keys under them.
#[async_trait::async_trait]
pub trait KeyService: Send + Sync {
    /// Wraps a data key under the service's own master key, bound to `blob`: it can't be unwrapped
    /// for another.
    async fn wrap(&self, blob: BlobId, key: &DataKey) -> Result<WrappedKey>;

    /// Unwraps what [`KeyService::wrap`] returned.
    ///
    /// # Errors
    /// Damaged where the wrap does not authenticate; Unavailable where the service is away.
    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> Result<DataKey>;

    /// Seals a short secret (an access key's) that the catalog stores, bound to `context`.
    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>>;

    /// Opens what [`KeyService::seal_secret`] returned.
    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>>;
}
