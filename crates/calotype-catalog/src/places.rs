//! Where blobs are, and the copies of them that are no blob's: those that are being made, and those that blobs have left.
//!
//! A copy is removed in three steps, as a blob is: its record goes to `deleting` in a transaction of its own, its bytes are removed, its
//! record is removed. A name in a store is never used twice, so whoever removes late removes nothing else.

use std::collections::BTreeMap;

use calotype_core::id::{BlobId, StoreName};
use calotype_core::ports::{BlobRecord, BlobsIn, Place, Places};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::blobs::{RECORD, record_of};
use crate::db::{Arg, Row};
use crate::rows::placeholders;

/// Where the blob is that a row of `id`, `store` and `place` is about.
pub(crate) fn place_of(row: &Row) -> Result<Place> {
    let moved: Option<BlobId> = row.opt_parsed("place")?;
    Ok(Place {
        store: row.parsed("store")?,
        id: moved.map_or_else(|| row.parsed("id"), Ok)?,
    })
}

/// A copy's place.
fn copy_of(row: &Row) -> Result<Place> {
    Ok(Place {
        store: row.parsed("store")?,
        id: row.parsed("id")?,
    })
}

/// What stands for a place in a comparison that seeks those after it: the beginning, where there is none.
fn after_args(after: Option<&Place>) -> [Arg; 2] {
    match after {
        Some(after) => [Arg::text(&after.store), Arg::text(after.id)],
        None => [Arg::text(""), Arg::text("")],
    }
}

/// What the column `place` says of a place: nothing where the blob is known by its own id.
pub(crate) fn place_arg(blob: BlobId, place: &Place) -> Arg {
    Arg::opt_text((place.id != blob).then_some(place.id))
}

#[async_trait::async_trait]
impl Places for SqlCatalog {
    async fn place(&self, blob: BlobId) -> Result<Option<Place>> {
        let sql = "select id, store, place from blobs where id = $1";
        let rows = self
            .db
            .fetch_all(sql.to_owned(), vec![Arg::text(blob)])
            .await?;
        rows.first().map(place_of).transpose()
    }
}

/// That an image or an unfinished job refers to the blob `b`.
const REFERENCED: &str = "(exists (select 1 from images i where i.blob = b.id) \
    or exists (select 1 from images i where i.uploading_blob = b.id) \
    or exists (select 1 from jobs j where j.blob = b.id) \
    or exists (select 1 from jobs j where j.target_blob = b.id))";

impl SqlCatalog {
    /// From now on no program is started on this catalog that knows of one store alone: it would look for every blob there, and
    /// take for lost what it does not find. One that runs already is the operator's to stop before.
    ///
    /// # Errors
    /// Unavailable; Internal.
    pub async fn have_several_stores(&self) -> Result<()> {
        let mut tx = self.db.write().await?;
        let sql = "update schema_migrations set compatible_from = 11 \
                   where version >= 11 and compatible_from < 11";
        tx.execute(sql, Vec::new()).await?;
        tx.commit().await
    }

    pub(crate) async fn place_upload_once(&self, blob: BlobId, store: &StoreName) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let sql = "update blobs set store = $2 where id = $1 and state = 'writing'";
        let args = vec![Arg::text(blob), Arg::text(store)];
        let changed = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    pub(crate) async fn read_blobs_in(
        &self,
        store: &StoreName,
        after: Option<BlobId>,
        limit: u32,
    ) -> Result<Vec<BlobRecord>> {
        let sql = format!(
            "{RECORD} where b.store = $1 and b.id > $2 and b.state in ('writing', 'stored') \
             and {REFERENCED} order by b.id limit $3"
        );
        let after = after.map_or_else(String::new, |after| after.to_string());
        let args = vec![Arg::text(store), Arg::text(after), i64::from(limit).into()];
        let rows = self.db.fetch_all(sql, args).await?;
        rows.iter().map(record_of).collect()
    }

    pub(crate) async fn read_store_content(&self, store: &StoreName) -> Result<BlobsIn> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "select count(*) as n, cast(coalesce(sum(case when x.kept then x.stored else 0 end), 0) as bigint) as bytes, \
             count(case when x.kept and x.state = 'stored' then 1 end) as blobs, \
             count(case when x.state = 'writing' then 1 end) as writing from \
             (select b.state, b.stored, {REFERENCED} as kept from blobs b where b.store = $1) as x"
        );
        let Some(row) = tx.fetch_optional(sql, vec![Arg::text(store)]).await? else {
            return Ok(BlobsIn::default());
        };
        let sql = "select count(*) as n, count(case when state = 'arriving' then 1 end) as arriving \
                   from blob_copies where store = $1";
        let copies = tx.fetch_optional(sql, vec![Arg::text(store)]).await?;
        let copies = copies.ok_or_else(|| Error::internal("a count has no row"))?;
        let (all, arriving) = (copies.count("n")?, copies.count("arriving")?);
        let (blobs, writing) = (row.count("blobs")?, row.count("writing")?);
        Ok(BlobsIn {
            blobs,
            bytes: ByteSize::new(row.count("bytes")?),
            writing,
            leaving: (row.count("n")? - blobs).saturating_sub(writing) + all - arriving,
            arriving,
        })
    }

    pub(crate) async fn read_stores_of(
        &self,
        blobs: &[BlobId],
    ) -> Result<BTreeMap<BlobId, StoreName>> {
        let Some(last) = blobs.last() else {
            return Ok(BTreeMap::new());
        };
        // The last again and again up to a power of two: a statement for each length of a page would not be one to prepare.
        let count = blobs.len().next_power_of_two();
        let wanted = blobs.iter().chain(std::iter::repeat(last)).take(count);
        let sql = format!(
            "select id, store from blobs where id in ({})",
            placeholders(1, count)
        );
        let mut tx = self.db.read().await?;
        let rows = tx.fetch_all(sql, wanted.map(Arg::text).collect()).await?;
        rows.iter()
            .map(|row| Ok((row.parsed("id")?, row.parsed("store")?)))
            .collect()
    }

    pub(crate) async fn read_stores_in_use(&self) -> Result<Vec<StoreName>> {
        let mut tx = self.db.read().await?;
        let mut stores: Vec<StoreName> = Vec::new();
        // From one name to the next, so that a million blobs of a store are one step of its index.
        let mut after = String::new();
        loop {
            let sql = "select store from blobs where store > $1 order by store limit 1";
            let Some(row) = tx.fetch_optional(sql, vec![Arg::text(&after)]).await? else {
                break;
            };
            after = row.text("store")?;
            stores.push(row.parsed("store")?);
        }
        let sql = "select distinct store from blob_copies";
        for row in tx.fetch_all(sql, Vec::new()).await? {
            stores.push(row.parsed("store")?);
        }
        stores.sort_unstable();
        stores.dedup();
        Ok(stores)
    }

    pub(crate) async fn read_copies(
        &self,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<Place>> {
        let sql = "select store, id from blob_copies where (store, id) > ($1, $2) \
                   order by store, id limit $3";
        let [store, id] = after_args(after);
        let args = vec![store, id, i64::from(limit).into()];
        let rows = self.db.fetch_all(sql.to_owned(), args).await?;
        rows.iter().map(copy_of).collect()
    }

    pub(crate) async fn read_deletable_copies(
        &self,
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<Place>> {
        let mut tx = self.db.read().await?;
        let now = tx.now().await?;
        let sql = "select store, id from blob_copies where deletable_at <= $1 \
                   and (store, id) > ($2, $3) order by store, id limit $4";
        let [store, id] = after_args(after);
        let args = vec![Arg::time(now), store, id, i64::from(limit).into()];
        let rows = tx.fetch_all(sql, args).await?;
        rows.iter().map(copy_of).collect()
    }

    pub(crate) async fn claim_copy_once(&self, place: &Place) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let sql = "update blob_copies set state = 'deleting' \
                   where store = $1 and id = $2 and deletable_at <= $3";
        let args = vec![Arg::text(&place.store), Arg::text(place.id), Arg::time(now)];
        let changed = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    pub(crate) async fn forget_copy_once(&self, place: &Place) -> Result<()> {
        let mut tx = self.db.write().await?;
        let sql = "delete from blob_copies where store = $1 and id = $2 and state = 'deleting'";
        let args = vec![Arg::text(&place.store), Arg::text(place.id)];
        tx.execute(sql, args).await?;
        tx.commit().await
    }
}
