//! Grants on customers' master keys, and the keys' tags.

use calotype_core::codes::KmsCode;
use calotype_core::id::{MasterKeyId, ProjectId};
use calotype_core::master_key::{Grant, GrantId, KeyOperation};
use calotype_core::ports::{AuditEvent, Page, TagChange, Trail, Window};
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::db::{Arg, Row};
use crate::ledger::insert_event;
use crate::master_keys::lock_key;
use crate::rows::write_trail;

const GRANT_COLUMNS: &str = "id, key_id, grantee, grantee_type, operations, name, retiring, \
    issuer, created_at";

fn grant_of(row: &Row) -> Result<Grant> {
    Ok(Grant {
        id: row.parsed("id")?,
        key: row.parsed("key_id")?,
        grantee: row.text("grantee")?,
        grantee_type: row.parsed("grantee_type")?,
        operations: operations_of(row)?,
        name: row.opt_text("name")?,
        retiring: row.opt_text("retiring")?,
        issuer: row.parsed("issuer")?,
        created_at: row.time("created_at")?,
    })
}

/// The words of a column `operations`; none where it is null.
pub(crate) fn operations_of(row: &Row) -> Result<Vec<KeyOperation>> {
    let words = row.opt_text("operations")?.unwrap_or_default();
    let operations = words.split(',').filter(|word| !word.is_empty());
    operations
        .map(|word| word.parse().map_err(Error::internal))
        .collect()
}

impl SqlCatalog {
    pub(crate) async fn insert_grant_once(
        &self,
        grant: &Grant,
        limit: u64,
        trail: &Trail,
    ) -> Result<()> {
        let mut tx = self.db.write().await?;
        // Locked, so that of many grants at once each counts those before it.
        let key = lock_key(&mut tx, &grant.key.to_string()).await?;
        let key = key.ok_or_else(|| Error::kms(KmsCode::KMS_0207))?;
        key.state.check_usable()?;
        let sql = "select count(*) as grants from key_grants where key_id = $1";
        let row = tx.fetch_optional(sql, vec![Arg::text(grant.key)]).await?;
        if row.map_or(Ok(0), |row| row.count("grants"))? >= limit {
            return Err(Error::kms(KmsCode::KMS_2404));
        }
        let sql = format!(
            "insert into key_grants ({GRANT_COLUMNS}) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        );
        let words: Vec<&str> = grant.operations.iter().map(|word| word.as_str()).collect();
        let args = vec![
            Arg::text(&grant.id),
            Arg::text(grant.key),
            Arg::text(&grant.grantee),
            Arg::text(grant.grantee_type),
            Arg::text(words.join(",")),
            Arg::opt_text(grant.name.as_ref()),
            Arg::opt_text(grant.retiring.as_ref()),
            Arg::text(&grant.issuer),
            Arg::time(grant.created_at),
        ];
        tx.execute(sql, args).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await
    }

    pub(crate) async fn grant_now(&self, id: &GrantId) -> Result<Option<Grant>> {
        let sql = format!("select {GRANT_COLUMNS} from key_grants where id = $1");
        let rows = self.db.fetch_all(sql, vec![Arg::text(id)]).await?;
        rows.first().map(grant_of).transpose()
    }

    /// The grants that have a value in a column, which is one of this crate's own words.
    pub(crate) async fn grants_where(
        &self,
        column: &'static str,
        value: &str,
        window: Window,
    ) -> Result<Page<Grant>> {
        let mut tx = self.db.read().await?;
        let sql = format!("select count(*) as total from key_grants where {column} = $1");
        let counted = tx.fetch_optional(sql, vec![Arg::text(value)]).await?;
        let total = counted.map_or(Ok(0), |row| row.count("total"))?;
        let sql = format!(
            "select {GRANT_COLUMNS} from key_grants where {column} = $1 \
             order by created_at, id limit $2 offset $3"
        );
        let args = vec![
            Arg::text(value),
            Arg::count(window.limit),
            Arg::count(window.offset),
        ];
        let rows = tx.fetch_all(sql, args).await?;
        let items: Result<Vec<_>> = rows.iter().map(grant_of).collect();
        Ok(Page {
            items: items?,
            total,
        })
    }

    pub(crate) async fn remove_grant_once(&self, id: &GrantId, line: &AuditEvent) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let sql = "delete from key_grants where id = $1";
        if tx.execute(sql, vec![Arg::text(id)]).await? == 0 {
            return Ok(false);
        }
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(crate) async fn tags_of_key(&self, key: MasterKeyId) -> Result<Vec<(String, String)>> {
        let sql = "select name, value from key_tags where key_id = $1 order by name";
        let rows = self.db.fetch_all(sql.to_owned(), vec![Arg::text(key)]);
        let tag = |row: &Row| Ok((row.text("name")?, row.text("value")?));
        rows.await?.iter().map(tag).collect()
    }

    pub(crate) async fn tags_of_project(
        &self,
        project: &ProjectId,
    ) -> Result<Vec<(MasterKeyId, String, String)>> {
        let sql = "select t.key_id, t.name, t.value from master_keys k join key_tags t \
                   on t.key_id = k.id where k.project = $1 order by t.key_id, t.name";
        let rows = self.db.fetch_all(sql.to_owned(), vec![Arg::text(project)]);
        let tag = |row: &Row| Ok((row.parsed("key_id")?, row.text("name")?, row.text("value")?));
        rows.await?.iter().map(tag).collect()
    }

    pub(crate) async fn change_tags_once(
        &self,
        key: MasterKeyId,
        change: &TagChange,
        limit: u64,
        line: &AuditEvent,
    ) -> Result<u64> {
        let mut tx = self.db.write().await?;
        let locked = lock_key(&mut tx, &key.to_string()).await?;
        locked.ok_or_else(|| Error::kms(KmsCode::KMS_0207))?;
        let mut removed = 0;
        for name in &change.remove {
            let sql = "delete from key_tags where key_id = $1 and name = $2";
            let args = vec![Arg::text(key), Arg::text(name)];
            removed += tx.execute(sql, args).await?;
        }
        for (name, value) in &change.set {
            let sql = "insert into key_tags (key_id, name, value) values ($1, $2, $3) \
                       on conflict (key_id, name) do update set value = excluded.value";
            let args = vec![Arg::text(key), Arg::text(name), Arg::text(value)];
            tx.execute(sql, args).await?;
        }
        let sql = "select count(*) as tags from key_tags where key_id = $1";
        let row = tx.fetch_optional(sql, vec![Arg::text(key)]).await?;
        if row.map_or(Ok(0), |row| row.count("tags"))? > limit {
            return Err(Error::kms(KmsCode::KMS_0409));
        }
        if removed == 0 && change.set.is_empty() {
            return Ok(0);
        }
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(removed)
    }
}
