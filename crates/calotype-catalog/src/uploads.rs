//! Uploads: a blob that is being written for an image, alive as long as its lease.
//!
//! The blob's row is there before its first byte is, so a crash leaves no byte without a row. What ends an
//! upload is one transaction; whoever comes second is refused. A blob that did not make it goes to
//! `deleting` at once: no image ever referred to it.

use std::time::Duration;

use calotype_core::id::{BlobId, ImageId};
use calotype_core::image::{Image, ImageStatus};
use calotype_core::ports::{BlobFacts, ByteLimit, Reservation, Trail};
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind, Result};

use crate::SqlCatalog;
use crate::db::{Arg, Tx};
use crate::images::no_image;
use crate::rows::{is_being_made, load_image, lock_image, one, size_arg, write_trail};
use crate::usage::{
    Account, end_reservation, lock_usage_and_image, lock_usage_of_blob, store_blob,
};

impl SqlCatalog {
    pub(crate) async fn begin_upload_once(
        &self,
        image: ImageId,
        blob: BlobId,
        lease: Duration,
        first: Reservation,
    ) -> Result<(Image, ByteSize)> {
        let mut tx = self.db.write().await?;
        let Some(row) = lock_usage_and_image(&mut tx, image).await? else {
            return Err(no_image());
        };
        if row.status != ImageStatus::Queued {
            return Err(Error::conflict(
                "Only an image in status queued takes bytes.",
            ));
        }
        if is_being_made(&mut tx, image).await? {
            return Err(Error::conflict("A job is making this image."));
        }
        let mut account = Account::open(&mut tx, &row.owner).await?;
        let reserved = account.reserve(first)?;
        account.save(&mut tx).await?;
        let now = tx.now().await?;
        let sql = "insert into blobs (id, state, lease_expires, reserved_for, reserved, store) \
                   values ($1, 'writing', $2, $3, $4, $5)";
        let args = vec![
            Arg::text(blob),
            Arg::time(now.plus(lease)),
            Arg::text(&row.owner),
            size_arg(Some(reserved))?,
            Arg::text(&self.options.new_blobs),
        ];
        tx.execute(sql, args).await?;
        let sql = "update images set status = 'saving', uploading_blob = $2, updated_at = $3, \
                   version = version + 1 where id = $1";
        let args = vec![Arg::text(image), Arg::text(blob), Arg::time(now)];
        let changed = tx.execute(sql, args).await?;
        one(changed, "a locked image is gone")?;
        let image = load_image(&mut tx, image).await?;
        tx.commit().await?;
        let image = image.ok_or_else(|| Error::internal("a locked image is gone"))?;
        Ok((image, reserved))
    }

    pub(crate) async fn extend_upload_once(&self, blob: BlobId, lease: Duration) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let sql = "update blobs set lease_expires = $2 where id = $1 and state = 'writing' \
                   and lease_expires > $3 \
                   and exists (select 1 from images where uploading_blob = $1)";
        let args = vec![Arg::text(blob), Arg::time(now.plus(lease)), Arg::time(now)];
        let changed = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    pub(crate) async fn finish_upload_once(
        &self,
        image: ImageId,
        blob: BlobId,
        facts: &BlobFacts,
        virtual_size: Option<ByteSize>,
        limit: ByteLimit,
        trail: &Trail,
    ) -> Result<Image> {
        let mut tx = self.db.write().await?;
        let Some(row) = lock_usage_and_image(&mut tx, image).await? else {
            return Err(Error::new(
                ErrorKind::Gone,
                "The image was deleted while it was uploaded.",
            ));
        };
        let ended = || Error::conflict("The upload was ended by another.");
        if row.uploading_blob != Some(blob) || row.status != ImageStatus::Saving {
            return Err(ended());
        }
        // The image is locked before the blob, the order in which all take them.
        if !store_blob(&mut tx, &row.owner, blob, facts, limit).await? {
            return Err(ended());
        }
        let sql = "update images set status = 'active', blob = $2, uploading_blob = null, \
                   size = $3, md5 = $4, sha256 = $5, sha512 = $6, active_at = $7, \
                   updated_at = $7, virtual_size = $8, version = version + 1 where id = $1";
        let args = vec![
            Arg::text(image),
            Arg::text(blob),
            size_arg(Some(facts.size))?,
            Arg::opt_text(facts.digests.md5.as_ref()),
            Arg::opt_text(facts.digests.sha256.as_ref()),
            Arg::opt_text(facts.digests.sha512.as_ref()),
            Arg::time(trail.event.at),
            size_arg(virtual_size)?,
        ];
        let changed = tx.execute(sql, args).await?;
        one(changed, "a locked image is gone")?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        let after = load_image(&mut tx, image).await?;
        tx.commit().await?;
        after.ok_or_else(no_image)
    }

    pub(crate) async fn abort_upload_once(&self, image: ImageId, blob: BlobId) -> Result<bool> {
        let mut tx = self.db.write().await?;
        lock_usage_of_blob(&mut tx, blob).await?;
        lock_image(&mut tx, image).await?;
        let now = tx.now().await?;
        let ended = end_upload(&mut tx, Some(image), blob, now).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// Ends an upload without bytes, where it has not ended yet. The usage of the project that it has bytes reserved for is
/// locked, and the image if there is one.
pub(crate) async fn end_upload(
    tx: &mut Tx,
    image: Option<ImageId>,
    blob: BlobId,
    now: calotype_core::time::Timestamp,
) -> Result<bool> {
    let sql = "select id from images where uploading_blob = $1 and id <> $2";
    let args = vec![
        Arg::text(blob),
        Arg::text(image.map_or_else(String::new, |id| id.to_string())),
    ];
    if tx.fetch_optional(sql, args).await?.is_some() {
        return Ok(false);
    }
    end_reservation(tx, blob).await?;
    let sql = "update blobs set state = 'deleting', lease_expires = null, deletable_at = null \
               where id = $1 and state = 'writing'";
    if tx.execute(sql, vec![Arg::text(blob)]).await? == 0 {
        return Ok(false);
    }
    if let Some(image) = image {
        let sql = "update images set status = 'queued', uploading_blob = null, updated_at = $3, \
                   version = version + 1 where id = $1 and uploading_blob = $2";
        let args = vec![Arg::text(image), Arg::text(blob), Arg::time(now)];
        tx.execute(sql, args).await?;
    }
    Ok(true)
}
