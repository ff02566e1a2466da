//! The ports: what the domain needs from the world, as traits that other crates implement.

mod blobs;
mod catalog;
mod compute;
mod convert;
mod directory;
mod master_keys;
mod objects;
mod quotas;
mod reconcile;

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Result;
use crate::id::{BlobId, KeyId, ProjectId};
use crate::keys::{KeyPurpose, KeyResult, KeyUser, MasterKey};
use crate::time::Timestamp;
use crate::vault::KeyBits;

pub use blobs::{
    BlobCheck, BlobFacts, BlobReader, Blobs, ByteStream, CopyOrder, Depth, DigestChoice, Extent,
    Labels, Place, Places, ResealOrder, ResealProgress, WriteOptions,
};
pub use catalog::{
    AuditEvent, Catalog, EnterpriseProject, Images, ImportPart, ImportedImage, Jobs, Ledger,
    MembersStep, NewDisksImport, NewExport, NewImport, NewMembersJob, NewMove, NewReplica,
    SeenImage, StoredAnswer, Trail,
};
pub use compute::{BackupKind, ComputeSource, NoCompute};
pub use convert::{Conversion, Converter, NoConverter};
pub use directory::{
    AccessKey, Assignment, AssignmentTarget, Directory, DomainRecord, ProjectRecord, Projects,
    RoleRecord, TemporaryKey, TokenRecord, UserRecord,
};
pub use objects::{NoBuckets, ObjectFacts, ObjectWriter, Objects};
pub use reconcile::{BlobRecord, BlobState, BlobsIn, Reconcile, Violation};

pub use master_keys::{
    KeyReaders, KeyUsage, Legacy, MasterKeys, Page, Placed, RootRecord, TagChange, Window,
    WrappedMaterial,
};

pub use quotas::{
    ByteLimit, ImageLimit, LimitChange, MemberLimit, OwnLimit, OwnLimits, ProjectQuota, Quotas,
    Reservation, SharedBlobs, Usage,
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
#[derive(Clone)]
pub struct DataKey(KeyBits);

impl DataKey {
    /// The key with these bits.
    pub fn new(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(KeyBits::written(|bits| *bits = *bytes))
    }

    /// A fresh key.
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self(KeyBits::written(|bits| entropy.fill(bits)))
    }

    /// The key's bits, for a cipher.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<KeyBits> for DataKey {
    fn from(bits: KeyBits) -> Self {
        Self(bits)
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
    /// The master key: `service` for the service's own; for a customer's, its key service and its id there, in the
    /// key service's own form.
    pub master_key: String,
    /// The master key's version.
    pub version: u32,
    /// The sealed data key, in the key service's own form.
    #[serde(with = "hex")]
    pub sealed: Vec<u8>,
}

/// The key services behind one port: they keep master keys, wrap data keys under them, and say who may use which.
#[async_trait::async_trait]
pub trait KeyService: Send + Sync {
    /// Whether the user may use a customer's key for this purpose now: it exists, is enabled, and is the user's
    /// project's or granted to the user.
    ///
    /// # Errors
    /// The fault that using it would have.
    async fn check(&self, user: &KeyUser, key: &KeyId, purpose: KeyPurpose) -> KeyResult<()>;

    /// Whether a customer's key is the user's project's own, and not one that was granted; none where the key service
    /// does not say whose a key is.
    ///
    /// # Errors
    /// As [`KeyService::check`].
    async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>>;

    /// Whether those who act in a project may read what a customer's key seals: the key is enabled, and the project's own
    /// or granted to one of them or to a domain of theirs, with `describe-key` and `decrypt-datakey`. `by` is who wants to
    /// know. None where the key service does not say, or not to them, whom a key lets in.
    ///
    /// # Errors
    /// Missing where there is no such key; Failed where the service is away.
    async fn lets_read(
        &self,
        _by: &KeyUser,
        _key: &KeyId,
        _project: &ProjectId,
    ) -> KeyResult<Option<bool>> {
        Ok(None)
    }

    /// Wraps a data key under a master key, bound to `blob`: it can't be unwrapped for another.
    ///
    /// # Errors
    /// As [`KeyService::check`].
    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey>;

    /// Unwraps what [`KeyService::wrap`] returned. It asks whether the key is enabled, not who may use it: that is
    /// [`KeyService::check`]'s matter.
    ///
    /// # Errors
    /// Missing and NotEnabled; Damaged where the wrap does not authenticate; Unavailable where the service is away.
    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey>;
}

/// Keeps short secrets safe that the catalog stores, such as an access key's.
pub trait Secrets: Send + Sync {
    /// Seals a secret, bound to `context`.
    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>>;

    /// Opens what [`Secrets::seal_secret`] returned.
    ///
    /// # Errors
    /// Damaged where it does not authenticate in this context.
    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>>;
}
