//! Root keys and the material that is wrapped under them.
//!
//! What writes wrapped material holds the current root key's row, shared, until its transaction ends: another one
//! becomes current only after it, and what it wrote is then found as stale. So nothing is ever written under a root
//! key that was retired.

use calotype_core::ports::{AuditEvent, Placed, RootRecord, WrappedMaterial};
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::db::{Arg, Row, Tx};
use crate::ledger::insert_event;

const MATERIAL_COLUMNS: &str = "v.key_id, v.version, v.root, v.wrapped, v.created_at";

fn material_of(row: &Row) -> Result<WrappedMaterial> {
    Ok(WrappedMaterial {
        key: row.text("key_id")?,
        version: version_of(row)?,
        root: row.text("root")?,
        wrapped: row.blob("wrapped")?,
        created_at: row.time("created_at")?,
    })
}

pub(crate) fn version_of(row: &Row) -> Result<u32> {
    u32::try_from(row.int("version")?).map_err(Error::internal)
}

/// Whether `root` is the one that wraps; it stays so until the transaction ends.
pub(crate) async fn is_current(tx: &mut Tx, root: &str) -> Result<bool> {
    let sql = "select name from root_keys where wraps";
    let current = tx.fetch_locked(sql, "for share", Vec::new()).await?;
    Ok(match current {
        Some(row) => row.text("name")? == root,
        None => false,
    })
}

pub(crate) async fn insert_material(tx: &mut Tx, material: &WrappedMaterial) -> Result<()> {
    let sql = "insert into master_key_versions (key_id, version, root, wrapped, created_at) \
               values ($1, $2, $3, $4, $5)";
    let args = vec![
        Arg::text(&material.key),
        i64::from(material.version).into(),
        Arg::text(&material.root),
        Arg::blob(material.wrapped.clone()),
        Arg::time(material.created_at),
    ];
    tx.execute(sql, args).await.map(drop)
}

impl SqlCatalog {
    pub(crate) async fn all_roots(&self) -> Result<Vec<RootRecord>> {
        let sql = "select name, since, wraps, retired_at, \
                   (select count(*) from master_key_versions v where v.root = r.name) as versions \
                   from root_keys r order by wraps desc, since desc, name";
        let rows = self.db.fetch_all(sql.to_owned(), Vec::new()).await?;
        let root = |row: &Row| {
            Ok(RootRecord {
                name: row.text("name")?,
                since: row.time("since")?,
                current: row.bool("wraps")?,
                retired_at: row.opt_time("retired_at")?,
                versions: row.count("versions")?,
            })
        };
        rows.iter().map(root).collect()
    }

    pub(crate) async fn begin_root_once(
        &self,
        name: &str,
        line: Option<&AuditEvent>,
    ) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let sql = "update root_keys set wraps = false where wraps \
                   and not exists (select 1 from root_keys where name = $1)";
        tx.execute(sql, vec![Arg::text(name)]).await?;
        // A conflict is another node's that did the same, or did it with another key.
        let sql = "insert into root_keys (name, since, wraps) values ($1, $2, true) \
                   on conflict do nothing";
        let now = tx.now().await?;
        let args = vec![Arg::text(name), Arg::time(now)];
        if tx.execute(sql, args).await? == 0 {
            return Ok(false);
        }
        if let Some(line) = line {
            insert_event(&mut tx, line).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    pub(crate) async fn retire_root_once(&self, name: &str, line: &AuditEvent) -> Result<()> {
        let mut tx = self.db.write().await?;
        let sql = "select wraps, retired_at from root_keys where name = $1";
        let row = tx
            .fetch_locked(sql, "for update", vec![Arg::text(name)])
            .await?;
        let row = row.ok_or_else(|| Error::not_found("There is no such root key."))?;
        if row.bool("wraps")? {
            return Err(Error::conflict("The root key is the one that wraps."));
        }
        if row.opt_time("retired_at")?.is_some() {
            return Ok(());
        }
        let sql = "select count(*) as versions from master_key_versions where root = $1";
        let left = tx.fetch_optional(sql, vec![Arg::text(name)]).await?;
        let left = left.map_or(Ok(0), |row| row.count("versions"))?;
        if left > 0 {
            return Err(Error::conflict(format!(
                "{left} versions of master keys are still wrapped under the root key {name}."
            )));
        }
        let now = tx.now().await?;
        let sql = "update root_keys set retired_at = $2 where name = $1";
        let args = vec![Arg::text(name), Arg::time(now)];
        tx.execute(sql, args).await?;
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        // What the material was wrapped in before goes from the journal, too.
        self.shred();
        self.truncate_journal().await
    }

    pub(crate) async fn stale_material_now(&self, limit: u32) -> Result<Vec<WrappedMaterial>> {
        let sql = format!(
            "select {MATERIAL_COLUMNS} from master_key_versions v where v.root in \
             (select name from root_keys where not wraps and retired_at is null) limit $1"
        );
        let rows = self.db.fetch_all(sql, vec![i64::from(limit).into()]);
        rows.await?.iter().map(material_of).collect()
    }

    pub(crate) async fn rewrap_once(
        &self,
        material: &[(String, WrappedMaterial)],
    ) -> Result<Placed> {
        let mut tx = self.db.write().await?;
        for (old, new) in material {
            if !is_current(&mut tx, &new.root).await? {
                return Ok(Placed::StaleRoot);
            }
            let sql = "update master_key_versions set root = $4, wrapped = $5 \
                       where key_id = $1 and version = $2 and root = $3";
            let args = vec![
                Arg::text(&new.key),
                i64::from(new.version).into(),
                Arg::text(old),
                Arg::text(&new.root),
                Arg::blob(new.wrapped.clone()),
            ];
            tx.execute(sql, args).await?;
        }
        tx.commit().await?;
        Ok(Placed::Done)
    }

    pub(crate) async fn service_material_now(&self) -> Result<Vec<WrappedMaterial>> {
        let sql = format!(
            "select {MATERIAL_COLUMNS} from master_keys k join master_key_versions v \
             on v.key_id = k.id where k.project is null order by v.key_id, v.version"
        );
        let rows = self.db.fetch_all(sql, Vec::new()).await?;
        rows.iter().map(material_of).collect()
    }

    pub(crate) async fn insert_service_material_once(
        &self,
        material: &[WrappedMaterial],
    ) -> Result<Placed> {
        let mut tx = self.db.write().await?;
        for version in material {
            if !is_current(&mut tx, &version.root).await? {
                return Ok(Placed::StaleRoot);
            }
            if version.version == 1 {
                let sql = "insert into master_keys (id, description, realm, enterprise_project, \
                           state, version, created_at, rotations) \
                           values ($1, '', '', '0', 'enabled', 1, $2, 0) on conflict do nothing";
                let args = vec![Arg::text(&version.key), Arg::time(version.created_at)];
                if tx.execute(sql, args).await? == 0 {
                    return Ok(Placed::Superseded);
                }
            }
            insert_material(&mut tx, version).await?;
            let sql = "update master_keys set version = $2 where id = $1 and version < $2";
            let args = vec![Arg::text(&version.key), i64::from(version.version).into()];
            tx.execute(sql, args).await?;
        }
        tx.commit().await?;
        Ok(Placed::Done)
    }

    pub(crate) async fn material_now(
        &self,
        key: &str,
        version: u32,
    ) -> Result<Option<WrappedMaterial>> {
        let sql = format!(
            "select {MATERIAL_COLUMNS} from master_key_versions v \
             where v.key_id = $1 and v.version = $2"
        );
        let args = vec![Arg::text(key), i64::from(version).into()];
        let rows = self.db.fetch_all(sql, args).await?;
        rows.first().map(material_of).transpose()
    }
}
