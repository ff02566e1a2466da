//! Purging: what has had its time goes, in small steps.
//!
//! A step is one transaction over one table, and removes at most [`STEP`] rows: a million that are due at once keep
//! nobody waiting who writes meanwhile. A crash, or another node at the same, leaves the rest to the next step. What
//! has no end yet (a job that is not over) has no time that could be past; ids of deleted images are never purged.
//!
//! Master keys go with all their material, and with a line in the audit trail. What they sealed can't be opened any
//! more from then on. On SQLite the rows are overwritten, and the journal is emptied; PostgreSQL keeps what was deleted
//! until it vacuums, and in its write-ahead log.

use std::time::Duration;

use calotype_core::Result;
use calotype_core::ports::AuditEvent;

use crate::SqlCatalog;
use crate::db::{Arg, again_on_contention};
use crate::ledger::insert_event;

/// The most rows that a step removes.
const STEP: i64 = 1000;

/// Rows that have had their time.
#[derive(Clone, Copy)]
struct Purged {
    table: &'static str,
    /// Its primary key's columns.
    key: &'static str,
    /// The column by which it is judged; it has an index.
    time: &'static str,
    /// How long after that time a row is kept.
    kept: Duration,
}

impl SqlCatalog {
    /// A step in each table. Returns how many rows went.
    pub(crate) async fn purge(&self) -> Result<u64> {
        let mut gone = 0;
        for purged in self.purged() {
            gone += again_on_contention!(self.purge_once(purged))?;
        }
        gone += again_on_contention!(self.purge_master_keys_once())?;
        self.truncate_journal().await?;
        Ok(gone)
    }

    async fn purge_master_keys_once(&self) -> Result<u64> {
        let mut tx = self.db.read().await?;
        let over = Arg::time(tx.now().await?);
        let look = "select id from master_keys where deletion_at <= $1 limit 1";
        let found = tx.fetch_optional(look, vec![over.clone()]).await?;
        drop(tx);
        if found.is_none() {
            return Ok(0);
        }
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let sql = "select id, project, alias, deletion_by, deletion_request from master_keys \
                   where deletion_at <= $1 order by deletion_at limit 100";
        let keys = tx.fetch_all_locked(sql, "for update skip locked", vec![over]);
        let keys = keys.await?;
        for key in &keys {
            let id = key.text("id")?;
            let line = AuditEvent {
                at: now,
                trace: "deleteKey".to_owned(),
                request_id: key.text("deletion_request")?,
                project: key.opt_parsed("project")?,
                user: key.parsed("deletion_by")?,
                resource_type: "kms".to_owned(),
                resource_id: id.clone(),
                detail: serde_json::json!({ "alias": key.text("alias")? }),
            };
            insert_event(&mut tx, &line).await?;
            // Versions, grants and tags go with it: their foreign keys cascade.
            let sql = "delete from master_keys where id = $1";
            tx.execute(sql, vec![Arg::text(id)]).await?;
        }
        tx.commit().await?;
        self.shred();
        Ok(keys.len() as u64)
    }

    fn purged(&self) -> [Purged; 5] {
        let purged = |table, key, time, kept| Purged {
            table,
            key,
            time,
            kept,
        };
        let options = &self.options;
        [
            purged("tokens", "hash", "expires_at", Duration::ZERO),
            // Permanent keys have no such time.
            purged("access_keys", "access", "expires_at", Duration::ZERO),
            purged(
                "idempotent_answers",
                "scope, idempotency_key",
                "created_at",
                options.answers_kept,
            ),
            purged("audit_events", "seq", "at", options.audit_kept),
            purged("jobs", "id", "ended_at", options.jobs_kept),
        ]
    }

    async fn purge_once(&self, purged: Purged) -> Result<u64> {
        // Mostly there is nothing to do: a look must not take the writer.
        let mut tx = self.db.read().await?;
        let over = Arg::time(tx.now().await?.minus(purged.kept));
        let found = tx.fetch_optional(purged.look(), vec![over.clone()]).await?;
        drop(tx);
        if found.is_none() {
            return Ok(0);
        }
        let mut tx = self.db.write().await?;
        let gone = tx.execute(purged.step(), vec![over, STEP.into()]).await?;
        tx.commit().await?;
        Ok(gone)
    }
}

impl Purged {
    fn look(&self) -> String {
        let Self { table, time, .. } = self;
        format!("select {time} from {table} where {time} <= $1 order by {time} limit 1")
    }

    /// Judged again row by row: another node may have written one anew since it was chosen.
    fn step(&self) -> String {
        let Self {
            table, key, time, ..
        } = self;
        format!(
            "delete from {table} where {time} <= $1 and ({key}) in \
             (select {key} from {table} where {time} <= $1 order by {time} limit $2)"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::clock::Epoch;
    use crate::{Options, SqlCatalog};

    #[tokio::test]
    async fn what_is_purged_is_found_by_an_index_in_order() {
        let place = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", place.path().join("catalog.db").display());
        let options = Options::default();
        let catalog = SqlCatalog::open(&url, options, Arc::new(Epoch)).await;
        let catalog = catalog.unwrap();
        let mut tx = catalog.db.read().await.unwrap();
        for purged in catalog.purged() {
            for (sql, args) in [
                (purged.look(), vec![0.into()]),
                (purged.step(), vec![0.into(), 1.into()]),
            ] {
                let plan = tx
                    .fetch_all(format!("explain query plan {sql}"), args)
                    .await;
                let steps: Vec<String> = plan
                    .unwrap()
                    .iter()
                    .map(|row| row.text("detail").unwrap())
                    .collect();
                let sought = steps.iter().any(|step| step.starts_with("SEARCH"));
                let read = steps.iter().any(|step| step.starts_with("SCAN"));
                let sorted = steps.iter().any(|step| step.contains("TEMP B-TREE"));
                assert!(sought && !read && !sorted, "{sql}\n{steps:#?}");
                // Of all that are due only the chosen ones are looked at.
                let by_time = steps.iter().filter(|step| step.contains("<?)"));
                assert_eq!(by_time.count(), 1, "{sql}\n{steps:#?}");
            }
        }
    }
}
