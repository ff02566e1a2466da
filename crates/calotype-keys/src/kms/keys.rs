//! Customers' master keys: making, finding and changing them.

use calotype_core::access::{Action, Scope};
use calotype_core::app::Keep;
use calotype_core::codes::KmsCode;
use calotype_core::id::{EnterpriseProjectId, MasterKeyId, UserId};
use calotype_core::master_key::{KeyAlias, KeyChange, KeyOperation, KeyState, MasterKeyRecord};
use calotype_core::ports::{AuditEvent, KeyUsage, Page, Placed, Trail, Window};
use calotype_core::{Error, Result};
use serde_json::{Value, json};

use super::{KeyRef, Permitted};
use crate::cipher::Material;
use crate::embedded::{EmbeddedKeys, KIND};

/// Who does in the audit trail what nobody asked for at that moment.
const SERVICE_USER: &str = "calotype";
/// How many keys are rotated in a round.
const ROTATED: u32 = 50;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its alias.
    pub alias: KeyAlias,
    /// What it is for.
    pub description: String,
    /// The region to show; none: the deployment's own.
    pub realm: Option<String>,
    /// The enterprise project to show.
    pub enterprise_project: EnterpriseProjectId,
}

/// How many keys and grants there are, and may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyQuota {
    /// What there is.
    pub usage: KeyUsage,
    /// Keys that the project may have.
    pub keys: u64,
    /// Grants that a key may have.
    pub grants: u64,
}

/// The action and the trail's name of a change.
const fn of_change(change: &KeyChange) -> (Action, &'static str) {
    match change {
        KeyChange::Enable => (Action::KeysEnable, "enableKey"),
        KeyChange::Disable => (Action::KeysDisable, "disableKey"),
        KeyChange::ScheduleDeletion(_) => (Action::KeysUpdate, "scheduleKeyDeletion"),
        KeyChange::CancelDeletion => (Action::KeysUpdate, "cancelKeyDeletion"),
        KeyChange::Alias(_) => (Action::KeysUpdate, "updateKeyAlias"),
        KeyChange::Description(_) => (Action::KeysUpdate, "updateKeyDescription"),
        KeyChange::EnableRotation => (Action::RotationEnable, "enableKeyRotation"),
        KeyChange::DisableRotation => (Action::RotationDisable, "disableKeyRotation"),
        KeyChange::RotationDays(_) => (Action::RotationUpdate, "updateKeyRotationInterval"),
    }
}

fn detail_of(change: &KeyChange) -> Value {
    match change {
        KeyChange::ScheduleDeletion(days) => json!({ "pending_days": days }),
        KeyChange::Alias(alias) => json!({ "alias": alias.as_str() }),
        KeyChange::RotationDays(days) => json!({ "rotation_interval": days }),
        _ => json!({}),
    }
}

impl EmbeddedKeys {
    /// Makes an enabled key in the caller's project.
    ///
    /// # Errors
    /// KMS.1104 where the alias is taken, KMS.1105 at the project's quota.
    pub async fn create_key(
        &self,
        by: &Permitted<'_>,
        new: NewKey,
        keep: Keep<'_, MasterKeyRecord>,
    ) -> Result<MasterKeyRecord> {
        by.takes(Action::KeysCreate)?;
        let Scope::Project(scope) = &by.call.principal.scope else {
            return Err(Error::kms(KmsCode::KMS_0321));
        };
        let now = self.clock.now();
        let key = MasterKeyRecord {
            id: MasterKeyId::random(self.entropy.as_ref()),
            project: scope.project.id.clone(),
            domain: scope.domain.id.clone(),
            alias: new.alias,
            description: new.description,
            realm: new.realm.unwrap_or_else(|| self.options.region.clone()),
            enterprise_project: new.enterprise_project,
            state: KeyState::Enabled,
            version: 1,
            created_at: now,
            deletion_at: None,
            rotation: None,
            rotated_at: None,
            rotations: 0,
        };
        let material = Material::random(self.entropy.as_ref());
        let detail = json!({ "alias": key.alias.as_str() });
        let trail = Trail {
            event: self.line(by, "createKey", key.id, detail),
            answer: keep.map(|keep| keep(&key)),
        };
        let quota = self.options.keys_per_project;
        let name = key.id.to_string();
        let mut attempts = 0;
        loop {
            let root = self.roots.current();
            let wrapped = root.wrap(&name, 1, &material, now, self.entropy.as_ref())?;
            let placed = self
                .catalog
                .insert_master_key(&key, &wrapped, quota, trail.clone());
            if self
                .roots
                .settled(placed.await?, &mut attempts)
                .await?
                .is_some()
            {
                return Ok(key);
            }
        }
    }

    /// A key that the caller may see.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306.
    pub async fn describe_key(&self, by: &Permitted<'_>, key: &KeyRef) -> Result<MasterKeyRecord> {
        by.takes(Action::KeysGet)?;
        let seen = self.find(by, key).await?;
        seen.check(by.project, KeyOperation::DescribeKey)?;
        Ok(seen.key)
    }

    /// How a key is rotated: the key itself.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306.
    pub async fn key_rotation(&self, by: &Permitted<'_>, key: &KeyRef) -> Result<MasterKeyRecord> {
        by.takes(Action::RotationGet)?;
        self.own_key(by, key).await
    }

    /// The keys of the caller's project, newest first, of one state where one is given.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn list_keys(
        &self,
        by: &Permitted<'_>,
        state: Option<KeyState>,
        window: Window,
    ) -> Result<Page<MasterKeyRecord>> {
        by.takes(Action::KeysList)?;
        self.catalog.list_keys(by.project, state, window).await
    }

    /// Changes a key of the caller's project.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306; the code of what is in the way.
    pub async fn change_key(
        &self,
        by: &Permitted<'_>,
        key: &KeyRef,
        change: &KeyChange,
    ) -> Result<MasterKeyRecord> {
        let (action, trace) = of_change(change);
        by.takes(action)?;
        let id = self.own_key(by, key).await?.id;
        let line = self.line(by, trace, id, detail_of(change));
        self.catalog.change_key(id, change, &line).await
    }

    /// Rotates a key of the caller's project now: a new version wraps from here on.
    ///
    /// # Errors
    /// KMS.0207, KMS.0306, KMS.0209, KMS.0210.
    pub async fn rotate_key(&self, by: &Permitted<'_>, key: &KeyRef) -> Result<MasterKeyRecord> {
        by.takes(Action::RotationUpdate)?;
        // Of two that rotate at once each gets a version: who comes second looks again.
        loop {
            let key = self.own_key(by, key).await?;
            key.state.check_usable()?;
            let version = next(&key)?;
            let line = self.line(by, "rotateKey", key.id, json!({ "version": version }));
            if self.add_version(&key, version, false, &line).await? == Placed::Done {
                return Ok(MasterKeyRecord { version, ..key });
            }
        }
    }

    /// How many keys the caller's project has.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn count_keys(&self, by: &Permitted<'_>) -> Result<u64> {
        by.takes(Action::KeysCount)?;
        Ok(self.catalog.key_usage(by.project).await?.keys)
    }

    /// How many keys and grants the caller's project has, and may have.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn key_quota(&self, by: &Permitted<'_>) -> Result<KeyQuota> {
        by.takes(Action::KeysQuota)?;
        Ok(KeyQuota {
            usage: self.catalog.key_usage(by.project).await?,
            keys: self.options.keys_per_project,
            grants: calotype_core::master_key::MAX_GRANTS,
        })
    }

    /// Rotates some of the keys that are due. Returns how many.
    pub(crate) async fn rotate_due(&self) -> Result<usize> {
        let user: UserId = SERVICE_USER.parse().map_err(Error::internal)?;
        let mut rotated = 0;
        for key in self.catalog.due_for_rotation(ROTATED).await? {
            let version = next(&key)?;
            let line = AuditEvent {
                at: self.clock.now(),
                trace: "rotateKey".to_owned(),
                request_id: String::new(),
                project: Some(key.project.clone()),
                user: user.clone(),
                resource_type: KIND.to_owned(),
                resource_id: key.id.to_string(),
                detail: json!({ "version": version }),
            };
            // Superseded: another node was first, or the key was changed meanwhile.
            if self.add_version(&key, version, true, &line).await? == Placed::Done {
                rotated += 1;
            }
        }
        Ok(rotated)
    }

    async fn add_version(
        &self,
        key: &MasterKeyRecord,
        version: u32,
        due: bool,
        line: &AuditEvent,
    ) -> Result<Placed> {
        let material = Material::random(self.entropy.as_ref());
        let (name, now) = (key.id.to_string(), self.clock.now());
        let mut attempts = 0;
        loop {
            let root = self.roots.current();
            let wrapped = root.wrap(&name, version, &material, now, self.entropy.as_ref())?;
            let placed = self.catalog.add_version(&wrapped, due, line).await?;
            if let Some(placed) = self.roots.settled(placed, &mut attempts).await? {
                return Ok(placed);
            }
        }
    }
}

fn next(key: &MasterKeyRecord) -> Result<u32> {
    let next = key.version.checked_add(1);
    next.ok_or_else(|| Error::internal("a key has no more versions"))
}
