//! The port to the master keys' records: their wrapped material, the root keys that wrap it, and customers' keys with
//! their grants and tags.
//!
//! What wraps material names the root key that it wrapped under, and the transaction that writes it checks that this
//! is the current one: a node that does not know of a newer root key writes nothing.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::catalog::{AuditEvent, Trail};
use crate::error::Result;
use crate::id::{MasterKeyId, ProjectId, UserId};
use crate::master_key::{
    Grant, GrantId, KeyChange, KeyOperation, KeyState, MasterKeyRecord, SeenKey,
};
use crate::time::Timestamp;

/// A version of a master key's material, wrapped under a root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedMaterial {
    /// The master key: the name of one of the service's own, or a customer's id.
    pub key: String,
    /// The version, from 1 on.
    pub version: u32,
    /// The name of the root key.
    pub root: String,
    /// The material, sealed.
    pub wrapped: Vec<u8>,
    /// When the version was made.
    pub created_at: Timestamp,
}

/// A root key that the catalog has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecord {
    /// Its name.
    pub name: String,
    /// Since when it wraps, or from when on it did.
    pub since: Timestamp,
    /// Whether it is the one that wraps.
    pub current: bool,
    /// When it was retired: it never wraps again.
    pub retired_at: Option<Timestamp>,
    /// How many versions of master keys are wrapped under it.
    pub versions: u64,
}

/// Whether something that was wrapped could be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Placed {
    /// It was.
    Done,
    /// Nothing was written: another root key wraps by now.
    StaleRoot,
    /// Nothing was written: the key has changed since it was read.
    Superseded,
}

/// What a catalog has of the time before it kept master keys, when all keys were derived from the root key itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// An access key's public part, and its secret as that time sealed it.
    pub access_key: Option<(String, Vec<u8>)>,
    /// Whether there are blobs.
    pub blobs: bool,
}

/// A page of a list, and how many entries there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// All that there are.
    pub total: u64,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many entries are passed over.
    pub offset: u64,
    /// The most that come.
    pub limit: u64,
}

/// What a project has of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUsage {
    /// Keys in any state.
    pub keys: u64,
    /// The most grants that one of them has.
    pub most_grants: u64,
}

/// A key, and what those who act in a project may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReaders {
    /// Where the key is in its life.
    pub state: KeyState,
    /// Whether the key is the project's own.
    pub own: bool,
    /// What was granted to each of them, or to a domain of theirs.
    pub granted: Vec<BTreeSet<KeyOperation>>,
}

/// A change of a key's tags: what is set is set after what is removed is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagChange {
    /// Tags to write, by key.
    pub set: Vec<(String, String)>,
    /// The keys of tags to remove. Those that are not there are passed over.
    pub remove: Vec<String>,
}

/// The master keys' records. Each method is one transaction.
///
/// A change of a customer's key takes its line of the audit trail, which the same transaction writes.
#[async_trait::async_trait]
pub trait MasterKeys: Send + Sync {
    /// The catalog's own id. Where it has none yet, `fresh` becomes it.
    async fn catalog_id(&self, fresh: Uuid) -> Result<Uuid>;

    /// What there is of the time before master keys were kept.
    async fn legacy(&self) -> Result<Legacy>;

    /// The root keys, the current one first.
    async fn roots(&self) -> Result<Vec<RootRecord>>;

    /// Makes a root key that was never seen the one that wraps. False, and nothing is written, where it was seen before.
    async fn begin_root(&self, name: &str, line: Option<&AuditEvent>) -> Result<bool>;

    /// Marks a root key as one that never wraps again. Not an error where it is marked.
    ///
    /// # Errors
    /// Conflict where it wraps, or where something is still wrapped under it; NotFound where it was never seen.
    async fn retire_root(&self, name: &str, line: &AuditEvent) -> Result<()>;

    /// Some of the material that is wrapped under another root key than the current one.
    async fn stale_material(&self, limit: u32) -> Result<Vec<WrappedMaterial>>;

    /// Writes other wraps of the same material. One whose wrap is not any more under the root that stands beside it is
    /// passed over.
    async fn rewrap(&self, material: &[(String, WrappedMaterial)]) -> Result<Placed>;

    /// All versions of the service's own keys, by key and version.
    async fn service_material(&self) -> Result<Vec<WrappedMaterial>>;

    /// Writes the service's own keys. Superseded where there are any.
    async fn insert_service_material(&self, material: &[WrappedMaterial]) -> Result<Placed>;

    /// A version of a key.
    async fn material(&self, key: &str, version: u32) -> Result<Option<WrappedMaterial>>;

    /// Makes a customer's key with its first version, unless its project has `quota` keys.
    ///
    /// # Errors
    /// KMS.1105 at the quota; KMS.1104 where the alias is taken; Conflict where the idempotency key is.
    async fn insert_master_key(
        &self,
        key: &MasterKeyRecord,
        material: &WrappedMaterial,
        quota: u64,
        trail: Trail,
    ) -> Result<Placed>;

    /// Makes the next version of a key the one that wraps. Superseded where `material.version` is not the next one, or
    /// the key is not enabled; with `due` also where it is not (any more) to be rotated by itself now.
    async fn add_version(
        &self,
        material: &WrappedMaterial,
        due: bool,
        line: &AuditEvent,
    ) -> Result<Placed>;

    /// Keys that are to be rotated by themselves now.
    async fn due_for_rotation(&self, limit: u32) -> Result<Vec<MasterKeyRecord>>;

    /// A key, and what was granted to the user, or to the user's domain as the directory has it.
    async fn seen_key(&self, id: MasterKeyId, user: &UserId) -> Result<Option<SeenKey>>;

    /// A key, and what was granted to each user who has a role in the project, and to the project's domain.
    async fn key_readers(&self, id: MasterKeyId, project: &ProjectId)
    -> Result<Option<KeyReaders>>;

    /// The state of a key, and the version that wraps; none where there is no such key.
    async fn key_state(&self, id: MasterKeyId) -> Result<Option<(KeyState, u32)>>;

    /// The key of a project that has this alias; one that is waiting to be deleted only where no other has it.
    async fn key_by_alias(&self, project: &ProjectId, alias: &str) -> Result<Option<MasterKeyId>>;

    /// A project's keys, newest first, of one state where one is given.
    async fn list_keys(
        &self,
        project: &ProjectId,
        state: Option<KeyState>,
        window: Window,
    ) -> Result<Page<MasterKeyRecord>>;

    /// Changes a key as its state allows, and returns it as it is then.
    ///
    /// # Errors
    /// KMS.0207 where there is none; what [`MasterKeyRecord::apply`] says; KMS.1104 where its alias is another's.
    async fn change_key(
        &self,
        id: MasterKeyId,
        change: &KeyChange,
        line: &AuditEvent,
    ) -> Result<MasterKeyRecord>;

    /// What a project has of keys.
    async fn key_usage(&self, project: &ProjectId) -> Result<KeyUsage>;

    /// Writes a line of the audit trail for a use of a key, which changes nothing.
    async fn note_use(&self, line: &AuditEvent) -> Result<()>;

    /// Makes a grant on an enabled key.
    ///
    /// # Errors
    /// KMS.0207, KMS.0209, KMS.0210 for the key; KMS.2404 where it has `limit` grants; Conflict where the idempotency
    /// key is taken.
    async fn insert_grant(&self, grant: &Grant, limit: u64, trail: Trail) -> Result<()>;

    /// A grant.
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>>;

    /// The grants on a key, oldest first.
    async fn grants(&self, key: MasterKeyId, window: Window) -> Result<Page<Grant>>;

    /// The grants that a user may give back because they name it for that, oldest first.
    async fn retirable_grants(&self, user: &UserId, window: Window) -> Result<Page<Grant>>;

    /// Ends a grant. False where there is none.
    async fn remove_grant(&self, id: &GrantId, line: &AuditEvent) -> Result<bool>;

    /// A key's tags, by key.
    async fn key_tags(&self, key: MasterKeyId) -> Result<Vec<(String, String)>>;

    /// The tags of all of a project's keys, by key's id and tag's key.
    async fn project_key_tags(
        &self,
        project: &ProjectId,
    ) -> Result<Vec<(MasterKeyId, String, String)>>;

    /// Changes a key's tags. Returns how many were removed; where nothing changed, no line is written.
    ///
    /// # Errors
    /// KMS.0207 where there is no such key; KMS.0409 where it would have more than `limit` tags.
    async fn change_key_tags(
        &self,
        key: MasterKeyId,
        change: &TagChange,
        limit: u64,
        line: &AuditEvent,
    ) -> Result<u64>;
}
