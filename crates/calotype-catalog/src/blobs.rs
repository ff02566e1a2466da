//! What the reconciler asks: which uploads are over, which blobs may go.
//!
//! A blob is deleted in three steps, each repeatable: its row goes to `deleting` in the transaction that
//! checks that nothing refers to it, its bytes are removed, its row is removed. A crash between them
//! leaves a row in `deleting`, which [`Reconcile::deletable_blobs`] names again.

use std::collections::BTreeMap;
use std::time::Duration;

use calotype_core::Result;
use calotype_core::error::Error;
use calotype_core::id::{BlobId, ImageId, StoreName};
use calotype_core::ports::{
    BlobFacts, BlobRecord, BlobState, BlobsIn, Place, Reconcile, Violation, WrappedKey,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;

use crate::SqlCatalog;
use crate::db::{Arg, Engine, Row, again_on_contention};
use crate::places::place_of;
use crate::rows::{digests_of, lock_image};
use crate::uploads::end_upload;
use crate::usage::lock_usage_of_blob;

/// That neither an image nor an unfinished job refers to the blob `b`.
const UNREFERENCED: &str = "not exists (select 1 from images i where i.blob = b.id) \
    and not exists (select 1 from images i where i.uploading_blob = b.id) \
    and not exists (select 1 from jobs j where j.blob = b.id) \
    and not exists (select 1 from jobs j where j.target_blob = b.id)";

/// What [`record_of`] reads.
pub(crate) const RECORD: &str = "select b.id, b.state, b.size, b.stored, b.md5, b.sha256, b.sha512, b.damaged_at, b.scrubbed_at, b.store, b.place, \
    (select count(*) from images i where i.blob = b.id) as images from blobs b";

pub(crate) fn record_of(row: &Row) -> Result<BlobRecord> {
    let state = match row.text("state")?.as_str() {
        "writing" => BlobState::Writing,
        "stored" => BlobState::Stored,
        "deleting" => BlobState::Deleting,
        _ => return Err(Error::internal("a blob is in an unknown state")),
    };
    let facts = match (row.opt_count("size")?, row.opt_count("stored")?) {
        (Some(size), Some(stored)) => Some(BlobFacts {
            size: ByteSize::new(size),
            stored: ByteSize::new(stored),
            digests: digests_of(row)?,
        }),
        _ => None,
    };
    Ok(BlobRecord {
        id: row.parsed("id")?,
        state,
        images: row.count("images")?,
        facts,
        damaged: row.opt_time("damaged_at")?.is_some(),
        scrubbed_at: row.opt_time("scrubbed_at")?,
        place: place_of(row)?,
    })
}

#[async_trait::async_trait]
impl Reconcile for SqlCatalog {
    async fn expire_uploads(&self) -> Result<Vec<BlobId>> {
        let mut tx = self.db.read().await?;
        let now = tx.now().await?;
        let sql = "select id from blobs where lease_expires <= $1 and state = 'writing' \
                   order by lease_expires limit 1000";
        let rows = tx.fetch_all(sql, vec![Arg::time(now)]).await?;
        drop(tx);
        let mut ended = Vec::new();
        for row in rows {
            let blob = row.parsed("id")?;
            if again_on_contention!(self.expire_upload_once(blob))? {
                ended.push(blob);
            }
        }
        Ok(ended)
    }

    async fn end_leases(&self) -> Result<()> {
        again_on_contention!(self.end_leases_once())
    }

    async fn deletable_blobs(
        &self,
        after: Option<BlobId>,
        limit: u32,
    ) -> Result<Vec<(BlobId, StoreName)>> {
        let mut tx = self.db.read().await?;
        let now = tx.now().await?;
        let sql = format!(
            "select b.id, b.store from blobs b where b.id > $2 and (b.state = 'deleting' or (b.state = 'stored' \
             and b.deletable_at <= $1 and {UNREFERENCED})) order by b.id limit $3"
        );
        let after = after.map(|after| after.to_string()).unwrap_or_default();
        let args = vec![Arg::time(now), Arg::text(after), i64::from(limit).into()];
        let rows = tx.fetch_all(sql, args).await?;
        rows.iter()
            .map(|row| Ok((row.parsed("id")?, row.parsed("store")?)))
            .collect()
    }

    async fn claim_deletion(&self, blob: BlobId) -> Result<bool> {
        again_on_contention!(self.claim_deletion_once(blob))
    }

    async fn forget_blob(&self, blob: BlobId) -> Result<()> {
        let mut tx = self.db.write().await?;
        let sql = "delete from blobs where id = $1 and state = 'deleting'";
        tx.execute(sql, vec![Arg::text(blob)]).await?;
        tx.commit().await
    }

    async fn mark_damaged(&self, blob: BlobId) -> Result<()> {
        let mut tx = self.db.write().await?;
        let now = Arg::time(tx.now().await?);
        for sql in [
            // Images before blobs: the order in which all take them.
            "update images set damaged_at = coalesce(damaged_at, $2) where blob = $1",
            "update blobs set damaged_at = coalesce(damaged_at, $2) where id = $1",
        ] {
            tx.execute(sql, vec![Arg::text(blob), now.clone()]).await?;
        }
        tx.commit().await
    }

    async fn clear_damage(&self, blob: BlobId) -> Result<()> {
        let mut tx = self.db.write().await?;
        for sql in [
            "update images set damaged_at = null where blob = $1",
            "update blobs set damaged_at = null where id = $1",
        ] {
            tx.execute(sql, vec![Arg::text(blob)]).await?;
        }
        tx.commit().await
    }

    async fn due_for_scrub(
        &self,
        until: Timestamp,
        after: Option<&BlobRecord>,
        limit: u32,
    ) -> Result<Vec<BlobRecord>> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "{RECORD} where b.state = 'stored' and coalesce(b.scrubbed_at, 0) <= $1 \
             and (coalesce(b.scrubbed_at, 0), b.id) > ($2, $3) \
             order by coalesce(b.scrubbed_at, 0), b.id limit $4"
        );
        let read = after.and_then(|after| after.scrubbed_at);
        let read = read.map_or(0, Timestamp::as_micros);
        let id = after.map_or_else(String::new, |after| after.id.to_string());
        let args = vec![
            Arg::time(until),
            read.into(),
            Arg::text(id),
            i64::from(limit).into(),
        ];
        let rows = tx.fetch_all(sql, args).await?;
        rows.iter().map(record_of).collect()
    }

    async fn unread_since(&self) -> Result<Option<Timestamp>> {
        let sql = "select coalesce(b.scrubbed_at, \
                       (select m.applied_at from schema_migrations m where m.version = 13)) as since \
                   from blobs b where b.state = 'stored' \
                   order by coalesce(b.scrubbed_at, 0), b.id limit 1";
        let rows = self.db.fetch_all(sql.to_owned(), Vec::new()).await?;
        rows.first().map_or(Ok(None), |row| row.opt_time("since"))
    }

    async fn note_scrub(&self, blob: BlobId) -> Result<()> {
        again_on_contention!(self.note_scrub_once(blob))
    }

    async fn damaged_blobs(&self) -> Result<u64> {
        let sql = "select count(*) as n from blobs \
                   where damaged_at is not null and state = 'stored'";
        let rows = self.db.fetch_all(sql.to_owned(), Vec::new()).await?;
        rows.first().map_or(Ok(0), |row| row.count("n"))
    }

    async fn wraps(&self, blob: BlobId) -> Result<Vec<WrappedKey>> {
        let mut tx = self.db.read().await?;
        let sql = "select distinct wrapped_key from images \
                   where blob = $1 and wrapped_key is not null";
        let rows = tx.fetch_all(sql, vec![Arg::text(blob)]).await?;
        let wraps = rows.iter().map(|row| row.json("wrapped_key"));
        wraps.filter_map(Result::transpose).collect()
    }

    async fn blob(&self, id: BlobId) -> Result<Option<BlobRecord>> {
        let mut tx = self.db.read().await?;
        let sql = format!("{RECORD} where b.id = $1");
        let row = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
        row.as_ref().map(record_of).transpose()
    }

    async fn blobs(&self, after: Option<BlobId>, limit: u32) -> Result<Vec<BlobRecord>> {
        let mut tx = self.db.read().await?;
        let sql = format!("{RECORD} where b.id > $1 order by b.id limit $2");
        let after = after.map_or_else(String::new, |after| after.to_string());
        let rows = tx
            .fetch_all(sql, vec![Arg::text(after), i64::from(limit).into()])
            .await?;
        rows.iter().map(record_of).collect()
    }

    async fn blobs_in(
        &self,
        store: &StoreName,
        after: Option<BlobId>,
        limit: u32,
    ) -> Result<Vec<BlobRecord>> {
        self.read_blobs_in(store, after, limit).await
    }

    async fn stores_of(&self, blobs: &[BlobId]) -> Result<BTreeMap<BlobId, StoreName>> {
        self.read_stores_of(blobs).await
    }

    async fn store_content(&self, store: &StoreName) -> Result<BlobsIn> {
        self.read_store_content(store).await
    }

    async fn stores_in_use(&self) -> Result<Vec<StoreName>> {
        self.read_stores_in_use().await
    }

    async fn copies(&self, after: Option<&Place>, limit: u32) -> Result<Vec<Place>> {
        self.read_copies(after, limit).await
    }

    async fn deletable_copies(&self, after: Option<&Place>, limit: u32) -> Result<Vec<Place>> {
        self.read_deletable_copies(after, limit).await
    }

    async fn claim_copy(&self, place: &Place) -> Result<bool> {
        again_on_contention!(self.claim_copy_once(place))
    }

    async fn forget_copy(&self, place: &Place) -> Result<()> {
        again_on_contention!(self.forget_copy_once(place))
    }

    async fn purge_expired(&self) -> Result<u64> {
        self.purge().await
    }

    async fn hold_lease(&self, name: &str, holder: &str, lease: Duration) -> Result<bool> {
        if self.db.engine() == Engine::Sqlite {
            return Ok(true);
        }
        again_on_contention!(self.hold_lease_once(name, holder, lease))
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        if self.db.engine() == Engine::Sqlite {
            return Ok(());
        }
        let mut tx = self.db.write().await?;
        let sql = "delete from leases where name = $1 and holder = $2";
        tx.execute(sql, vec![Arg::text(name), Arg::text(holder)])
            .await?;
        tx.commit().await
    }

    async fn violations(&self) -> Result<Vec<Violation>> {
        let mut tx = self.db.read().await?;
        crate::verify::violations(&mut tx).await
    }

    async fn ping(&self) -> Result<()> {
        let mut tx = self.db.read().await?;
        let sql = "select version from schema_migrations limit 1";
        tx.fetch_optional(sql, Vec::new()).await?;
        Ok(())
    }
}

impl SqlCatalog {
    async fn hold_lease_once(&self, name: &str, holder: &str, lease: Duration) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        // A lease that ends later than any could that was taken until now is from a clock that was set back since. The
        // holder may have extended it while its row was waited for.
        let sql = "insert into leases (name, holder, expires_at) values ($1, $2, $3) \
                   on conflict (name) do update set holder = $2, expires_at = $3 \
                   where leases.holder = $2 or leases.expires_at <= $4 or leases.expires_at > $5";
        let args = vec![
            Arg::text(name),
            Arg::text(holder),
            Arg::time(now.plus(lease)),
            Arg::time(now),
            Arg::time(now.plus(lease * 2)),
        ];
        let held = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(held == 1)
    }

    async fn note_scrub_once(&self, blob: BlobId) -> Result<()> {
        let mut tx = self.db.write().await?;
        let now = Arg::time(tx.now().await?);
        let sql = "update blobs set scrubbed_at = $2 where id = $1 and state = 'stored'";
        tx.execute(sql, vec![Arg::text(blob), now]).await?;
        tx.commit().await
    }

    async fn end_leases_once(&self) -> Result<()> {
        let mut tx = self.db.write().await?;
        // The beginning of time, so that a clock that was set back makes none of them valid again.
        let over = Arg::time(Timestamp::from_micros(0));
        let sql = "update blobs set lease_expires = $1 \
                   where state = 'writing' and lease_expires is not null";
        tx.execute(sql, vec![over]).await?;
        let now = tx.now().await?;
        let sql = "update jobs set lease_owner = null, due_at = $1, deaths = deaths + 1, attempt_at = null \
                   where ended_at is null and lease_owner is not null";
        tx.execute(sql, vec![Arg::time(now)]).await?;
        self.commit_and_ring(tx).await
    }

    async fn expire_upload_once(&self, blob: BlobId) -> Result<bool> {
        let mut tx = self.db.write().await?;
        lock_usage_of_blob(&mut tx, blob).await?;
        let sql = "select id from images where uploading_blob = $1";
        let row = tx.fetch_optional(sql, vec![Arg::text(blob)]).await?;
        let image: Option<ImageId> = row.map(|row| row.parsed("id")).transpose()?;
        if let Some(image) = image {
            lock_image(&mut tx, image).await?;
        }
        let now = tx.now().await?;
        // Looked at again under the lock: the upload may have been extended since it was found.
        let sql =
            "select id from blobs where id = $1 and state = 'writing' and lease_expires <= $2";
        let args = vec![Arg::text(blob), Arg::time(now)];
        if tx.fetch_locked(sql, "for update", args).await?.is_none() {
            return Ok(false);
        }
        let ended = end_upload(&mut tx, image, blob, now).await?;
        tx.commit().await?;
        Ok(ended)
    }

    async fn claim_deletion_once(&self, blob: BlobId) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let sql = "select id from blobs where id = $1";
        tx.fetch_locked(sql, "for update", vec![Arg::text(blob)])
            .await?;
        // One statement sees both references in one state: a job that ends well becomes an image's
        // reference in the same transaction.
        let sql = format!(
            "update blobs as b set state = 'deleting', deletable_at = null where b.id = $1 \
             and (b.state = 'deleting' or (b.state = 'stored' and b.deletable_at <= $2)) \
             and {UNREFERENCED}"
        );
        let changed = tx
            .execute(sql, vec![Arg::text(blob), Arg::time(now)])
            .await?;
        tx.commit().await?;
        Ok(changed == 1)
    }
}
