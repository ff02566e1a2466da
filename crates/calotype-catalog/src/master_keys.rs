//! Customers' master keys.
//!
//! A key's row is locked while it is changed, and the domain's rule says what its state allows: two changes at once
//! are made one after the other. How many keys a project has is counted under the lock of its usage.

use std::collections::{BTreeMap, BTreeSet};

use calotype_core::codes::KmsCode;
use calotype_core::id::{MasterKeyId, ProjectId, UserId};
use calotype_core::master_key::{
    Grant, GrantId, KeyChange, KeyOperation, KeyState, MasterKeyRecord, Rotation, SeenKey,
};
use calotype_core::ports::{
    AuditEvent, KeyReaders, KeyUsage, Legacy, MasterKeys, Page, Placed, RootRecord, TagChange,
    Trail, Window, WrappedMaterial,
};
use calotype_core::{Error, ErrorKind, Result};
use uuid::Uuid;

use crate::SqlCatalog;
use crate::db::{Arg, Row, Tx, again_on_contention};
use crate::ledger::insert_event;
use crate::roots::{insert_material, is_current, version_of};
use crate::rows::write_trail;
use crate::usage::Account;

const KEY_COLUMNS: &str = "k.id, k.project, k.domain, k.alias, k.description, k.realm, \
    k.enterprise_project, k.state, k.version, k.created_at, k.deletion_at, k.rotation_days, \
    k.rotation_since, k.rotated_at, k.rotations";
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

fn key_of(row: &Row) -> Result<MasterKeyRecord> {
    let rotation = match row.opt_int("rotation_days")? {
        None => None,
        Some(days) => Some(Rotation {
            days: u16::try_from(days).map_err(Error::internal)?,
            since: row.time("rotation_since")?,
        }),
    };
    Ok(MasterKeyRecord {
        id: row.parsed("id")?,
        project: row.parsed("project")?,
        domain: row.parsed("domain")?,
        alias: row.parsed("alias")?,
        description: row.text("description")?,
        realm: row.text("realm")?,
        enterprise_project: row.parsed("enterprise_project")?,
        state: row.parsed("state")?,
        version: version_of(row)?,
        created_at: row.time("created_at")?,
        deletion_at: row.opt_time("deletion_at")?,
        rotation,
        rotated_at: row.opt_time("rotated_at")?,
        rotations: u32::try_from(row.int("rotations")?).map_err(Error::internal)?,
    })
}

fn no_key() -> Error {
    Error::kms(KmsCode::KMS_0207)
}

/// A key's row, which nobody else changes until the transaction ends.
pub(crate) async fn lock_key(tx: &mut Tx, id: &str) -> Result<Option<MasterKeyRecord>> {
    const SQL: &str = "select id, project, domain, alias, description, realm, enterprise_project, \
        state, version, created_at, deletion_at, rotation_days, rotation_since, rotated_at, \
        rotations from master_keys where id = $1 and project is not null";
    let row = tx.fetch_locked(SQL, "for update", vec![Arg::text(id)]);
    row.await?.as_ref().map(key_of).transpose()
}

/// Whether another key of the project has the alias.
async fn alias_is_taken(tx: &mut Tx, key: &MasterKeyRecord) -> Result<bool> {
    let sql = "select id from master_keys where project = $1 and alias = $2 \
               and state <> 'pending' and id <> $3";
    let args = vec![
        Arg::text(&key.project),
        Arg::text(&key.alias),
        Arg::text(key.id),
    ];
    Ok(tx.fetch_optional(sql, args).await?.is_some())
}

/// The unique index decides between two that take an alias at once.
fn taken_alias(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Conflict => Error::kms(KmsCode::KMS_1104),
        _ => error,
    }
}

#[async_trait::async_trait]
impl MasterKeys for SqlCatalog {
    async fn catalog_id(&self, fresh: Uuid) -> Result<Uuid> {
        let mut tx = self.db.write().await?;
        let sql =
            "insert into catalog_facts (name, value) values ('id', $1) on conflict do nothing";
        tx.execute(sql, vec![Arg::text(fresh)]).await?;
        let sql = "select value from catalog_facts where name = 'id'";
        let row = tx.fetch_optional(sql, Vec::new()).await?;
        let id = row.ok_or_else(|| Error::internal("the catalog has no id"))?;
        let id = id.parsed("value")?;
        tx.commit().await?;
        Ok(id)
    }

    async fn legacy(&self) -> Result<Legacy> {
        let mut tx = self.db.read().await?;
        let sql = "select access, sealed_secret from access_keys order by created_at limit 1";
        let access_key = match tx.fetch_optional(sql, Vec::new()).await? {
            Some(row) => Some((row.text("access")?, row.blob("sealed_secret")?)),
            None => None,
        };
        let sql = "select id from blobs limit 1";
        let blobs = tx.fetch_optional(sql, Vec::new()).await?.is_some();
        Ok(Legacy { access_key, blobs })
    }

    async fn roots(&self) -> Result<Vec<RootRecord>> {
        self.all_roots().await
    }

    async fn begin_root(&self, name: &str, line: Option<&AuditEvent>) -> Result<bool> {
        again_on_contention!(self.begin_root_once(name, line))
    }

    async fn retire_root(&self, name: &str, line: &AuditEvent) -> Result<()> {
        again_on_contention!(self.retire_root_once(name, line))
    }

    async fn stale_material(&self, limit: u32) -> Result<Vec<WrappedMaterial>> {
        self.stale_material_now(limit).await
    }

    async fn rewrap(&self, material: &[(String, WrappedMaterial)]) -> Result<Placed> {
        again_on_contention!(self.rewrap_once(material))
    }

    async fn service_material(&self) -> Result<Vec<WrappedMaterial>> {
        self.service_material_now().await
    }

    async fn insert_service_material(&self, material: &[WrappedMaterial]) -> Result<Placed> {
        again_on_contention!(self.insert_service_material_once(material))
    }

    async fn material(&self, key: &str, version: u32) -> Result<Option<WrappedMaterial>> {
        self.material_now(key, version).await
    }

    async fn insert_master_key(
        &self,
        key: &MasterKeyRecord,
        material: &WrappedMaterial,
        quota: u64,
        trail: Trail,
    ) -> Result<Placed> {
        again_on_contention!(self.insert_key_once(key, material, quota, &trail))
    }

    async fn add_version(
        &self,
        material: &WrappedMaterial,
        due: bool,
        line: &AuditEvent,
    ) -> Result<Placed> {
        again_on_contention!(self.add_version_once(material, due, line))
    }

    async fn due_for_rotation(&self, limit: u32) -> Result<Vec<MasterKeyRecord>> {
        let mut tx = self.db.read().await?;
        let now = tx.now().await?;
        let sql = format!(
            "select {KEY_COLUMNS} from master_keys k where k.rotation_since is not null \
             and k.rotation_since + k.rotation_days * {DAY_MICROS} <= $1 \
             and k.state = 'enabled' order by k.rotation_since limit $2"
        );
        let args = vec![Arg::time(now), i64::from(limit).into()];
        tx.fetch_all(sql, args).await?.iter().map(key_of).collect()
    }

    async fn seen_key(&self, id: MasterKeyId, user: &UserId) -> Result<Option<SeenKey>> {
        let sql = format!(
            "select {KEY_COLUMNS}, g.operations from master_keys k \
             left join key_grants g on g.key_id = k.id \
             and (g.grantee_type = 'user' and g.grantee = $2 \
             or g.grantee_type = 'domain' and g.grantee = \
             (select domain_id from users where id = $2)) \
             where k.id = $1 and k.project is not null"
        );
        let args = vec![Arg::text(id), Arg::text(user)];
        let rows = self.db.fetch_all(sql, args).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let mut granted = BTreeSet::new();
        for row in &rows {
            granted.extend(crate::grants::operations_of(row)?);
        }
        let key = key_of(first)?;
        Ok(Some(SeenKey { key, granted }))
    }

    async fn key_readers(
        &self,
        id: MasterKeyId,
        project: &ProjectId,
    ) -> Result<Option<KeyReaders>> {
        let mut tx = self.db.read().await?;
        let sql = "select state, project from master_keys where id = $1 and project is not null";
        let Some(key) = tx.fetch_optional(sql, vec![Arg::text(id)]).await? else {
            return Ok(None);
        };
        // Each grant for each who has it: a user by its id, and by no id who else is of the project's domain.
        let sql = "select u.id as reader, g.operations from assignments a \
                   join users u on u.id = a.user_id \
                   join key_grants g on g.key_id = $1 \
                   and (g.grantee_type = 'user' and g.grantee = u.id \
                   or g.grantee_type = 'domain' and g.grantee = u.domain_id) \
                   where a.target_kind = 'project' and a.target_id = $2 \
                   union all select '' as reader, g.operations from projects p \
                   join key_grants g on g.key_id = $1 and g.grantee_type = 'domain' \
                   and g.grantee = p.domain_id where p.id = $2";
        let args = vec![Arg::text(id), Arg::text(project)];
        let mut granted: BTreeMap<String, BTreeSet<KeyOperation>> = BTreeMap::new();
        for row in tx.fetch_all(sql, args).await? {
            let operations = crate::grants::operations_of(&row)?;
            granted
                .entry(row.text("reader")?)
                .or_default()
                .extend(operations);
        }
        Ok(Some(KeyReaders {
            state: key.parsed("state")?,
            own: key.text("project")? == project.as_str(),
            granted: granted.into_values().collect(),
        }))
    }

    async fn key_state(&self, id: MasterKeyId) -> Result<Option<(KeyState, u32)>> {
        let sql = "select state, version from master_keys where id = $1 and project is not null";
        let rows = self
            .db
            .fetch_all(sql.to_owned(), vec![Arg::text(id)])
            .await?;
        let state = |row: &Row| Ok((row.parsed("state")?, version_of(row)?));
        rows.first().map(state).transpose()
    }

    async fn key_by_alias(&self, project: &ProjectId, alias: &str) -> Result<Option<MasterKeyId>> {
        let sql = "select id from master_keys where project = $1 and alias = $2 \
                   order by case when state = 'pending' then 1 else 0 end, created_at desc limit 1";
        let args = vec![Arg::text(project), Arg::text(alias)];
        let rows = self.db.fetch_all(sql.to_owned(), args).await?;
        rows.first().map(|row| row.parsed("id")).transpose()
    }

    async fn list_keys(
        &self,
        project: &ProjectId,
        state: Option<KeyState>,
        window: Window,
    ) -> Result<Page<MasterKeyRecord>> {
        let mut tx = self.db.read().await?;
        let sql = "select count(*) as total from master_keys k where k.project = $1 \
                   and ($2 is null or k.state = $2)";
        let mut args = vec![Arg::text(project), Arg::opt_text(state)];
        let counted = tx.fetch_optional(typed(sql), args.clone()).await?;
        let total = counted.map_or(Ok(0), |row| row.count("total"))?;
        let sql = format!(
            "select {KEY_COLUMNS} from master_keys k where k.project = $1 \
             and ($2 is null or k.state = $2) order by k.created_at desc, k.id desc \
             limit $3 offset $4"
        );
        args.extend([Arg::count(window.limit), Arg::count(window.offset)]);
        let rows = tx.fetch_all(typed(&sql), args).await?;
        let items: Result<Vec<_>> = rows.iter().map(key_of).collect();
        Ok(Page {
            items: items?,
            total,
        })
    }

    async fn change_key(
        &self,
        id: MasterKeyId,
        change: &KeyChange,
        line: &AuditEvent,
    ) -> Result<MasterKeyRecord> {
        again_on_contention!(self.change_key_once(id, change, line))
    }

    async fn key_usage(&self, project: &ProjectId) -> Result<KeyUsage> {
        let sql = "select (select count(*) from master_keys where project = $1) as keys, \
                   (select coalesce(max(n), 0) from (select count(*) as n from key_grants g \
                   join master_keys k on k.id = g.key_id where k.project = $1 \
                   group by g.key_id) counted) as most_grants";
        let rows = self
            .db
            .fetch_all(sql.to_owned(), vec![Arg::text(project)])
            .await?;
        rows.first().map_or(Ok(KeyUsage::default()), |row| {
            Ok(KeyUsage {
                keys: row.count("keys")?,
                most_grants: row.count("most_grants")?,
            })
        })
    }

    async fn note_use(&self, line: &AuditEvent) -> Result<()> {
        let mut tx = self.db.write().await?;
        insert_event(&mut tx, line).await?;
        tx.commit().await
    }

    async fn insert_grant(&self, grant: &Grant, limit: u64, trail: Trail) -> Result<()> {
        again_on_contention!(self.insert_grant_once(grant, limit, &trail))
    }

    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>> {
        self.grant_now(id).await
    }

    async fn grants(&self, key: MasterKeyId, window: Window) -> Result<Page<Grant>> {
        self.grants_where("key_id", &key.to_string(), window).await
    }

    async fn retirable_grants(&self, user: &UserId, window: Window) -> Result<Page<Grant>> {
        self.grants_where("retiring", user.as_str(), window).await
    }

    async fn remove_grant(&self, id: &GrantId, line: &AuditEvent) -> Result<bool> {
        again_on_contention!(self.remove_grant_once(id, line))
    }

    async fn key_tags(&self, key: MasterKeyId) -> Result<Vec<(String, String)>> {
        self.tags_of_key(key).await
    }

    async fn project_key_tags(
        &self,
        project: &ProjectId,
    ) -> Result<Vec<(MasterKeyId, String, String)>> {
        self.tags_of_project(project).await
    }

    async fn change_key_tags(
        &self,
        key: MasterKeyId,
        change: &TagChange,
        limit: u64,
        line: &AuditEvent,
    ) -> Result<u64> {
        again_on_contention!(self.change_tags_once(key, change, limit, line))
    }
}

/// PostgreSQL wants to know what type a placeholder has that is only compared with null.
fn typed(sql: &str) -> String {
    sql.replace("$2 is null", "cast($2 as text) is null")
}

impl SqlCatalog {
    async fn insert_key_once(
        &self,
        key: &MasterKeyRecord,
        material: &WrappedMaterial,
        quota: u64,
        trail: &Trail,
    ) -> Result<Placed> {
        let mut tx = self.db.write().await?;
        if !is_current(&mut tx, &material.root).await? {
            return Ok(Placed::StaleRoot);
        }
        Account::open(&mut tx, &key.project).await?;
        if alias_is_taken(&mut tx, key).await? {
            return Err(Error::kms(KmsCode::KMS_1104));
        }
        if keys_of(&mut tx, &key.project).await? >= quota {
            return Err(Error::kms(KmsCode::KMS_1105));
        }
        let sql = "insert into master_keys (id, project, domain, alias, description, realm, \
                   enterprise_project, state, version, created_at, rotations) \
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)";
        let args = vec![
            Arg::text(key.id),
            Arg::text(&key.project),
            Arg::text(&key.domain),
            Arg::text(&key.alias),
            Arg::text(&key.description),
            Arg::text(&key.realm),
            Arg::text(key.enterprise_project),
            Arg::text(key.state),
            i64::from(key.version).into(),
            Arg::time(key.created_at),
        ];
        tx.execute(sql, args).await?;
        insert_material(&mut tx, material).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await?;
        Ok(Placed::Done)
    }

    async fn add_version_once(
        &self,
        material: &WrappedMaterial,
        due: bool,
        line: &AuditEvent,
    ) -> Result<Placed> {
        let mut tx = self.db.write().await?;
        if !is_current(&mut tx, &material.root).await? {
            return Ok(Placed::StaleRoot);
        }
        let now = tx.now().await?;
        let Some(key) = lock_key(&mut tx, &material.key).await? else {
            return Ok(Placed::Superseded);
        };
        let is_due = key.rotation.is_some_and(|rotation| {
            let period = i64::from(rotation.days) * DAY_MICROS;
            rotation.since.as_micros().saturating_add(period) <= now.as_micros()
        });
        let next = key.version.checked_add(1) == Some(material.version);
        if !next || key.state != KeyState::Enabled || (due && !is_due) {
            return Ok(Placed::Superseded);
        }
        insert_material(&mut tx, material).await?;
        let sql = "update master_keys set version = $2, rotated_at = $3, rotations = rotations + 1, \
                   rotation_since = case when rotation_days is null then null else $3 end \
                   where id = $1";
        let args = vec![
            Arg::text(&material.key),
            i64::from(material.version).into(),
            Arg::time(now),
        ];
        tx.execute(sql, args).await?;
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(Placed::Done)
    }

    async fn change_key_once(
        &self,
        id: MasterKeyId,
        change: &KeyChange,
        line: &AuditEvent,
    ) -> Result<MasterKeyRecord> {
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let key = lock_key(&mut tx, &id.to_string()).await?;
        let mut key = key.ok_or_else(no_key)?;
        key.apply(change, now)?;
        let takes_alias = matches!(change, KeyChange::Alias(_) | KeyChange::CancelDeletion);
        if takes_alias && alias_is_taken(&mut tx, &key).await? {
            return Err(Error::kms(KmsCode::KMS_1104));
        }
        let pending = key.deletion_at.is_some();
        let scheduled = matches!(change, KeyChange::ScheduleDeletion(_));
        let sql = "update master_keys set alias = $2, description = $3, state = $4, \
                   deletion_at = $5, rotation_days = $6, rotation_since = $7, \
                   deletion_by = case when $8 then $10 when $9 then deletion_by else null end, \
                   deletion_request = \
                   case when $8 then $11 when $9 then deletion_request else null end \
                   where id = $1";
        let rotation = key.rotation;
        let args = vec![
            Arg::text(id),
            Arg::text(&key.alias),
            Arg::text(&key.description),
            Arg::text(key.state),
            Arg::opt_time(key.deletion_at),
            Arg::Int(rotation.map(|rotation| i64::from(rotation.days))),
            Arg::opt_time(rotation.map(|rotation| rotation.since)),
            scheduled.into(),
            pending.into(),
            Arg::text(&line.user),
            Arg::text(&line.request_id),
        ];
        tx.execute(sql, args).await.map_err(taken_alias)?;
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(key)
    }
}

/// How many keys a project has, in whatever state.
pub(crate) async fn keys_of(tx: &mut Tx, project: &ProjectId) -> Result<u64> {
    let sql = "select count(*) as keys from master_keys where project = $1";
    let row = tx.fetch_optional(sql, vec![Arg::text(project)]).await?;
    row.map_or(Ok(0), |row| row.count("keys"))
}
