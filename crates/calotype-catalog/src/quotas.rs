//! Quotas: limits of projects' own, what projects have, and what is reserved as bytes come.

use calotype_core::id::{BlobId, ProjectId};
use calotype_core::ports::{
    AuditEvent, ByteLimit, LimitChange, OwnLimits, ProjectQuota, Quotas, Reservation, Usage,
};
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind, Result};

use crate::SqlCatalog;
use crate::db::{Arg, again_on_contention};
use crate::ledger::insert_event;
use crate::rows::size_arg;
use crate::usage::{Account, limit_arg, lock_usage_of_blob, own_limits, read_usage, room};

#[async_trait::async_trait]
impl Quotas for SqlCatalog {
    async fn quota(&self, project: &ProjectId) -> Result<ProjectQuota> {
        let mut tx = self.db.read().await?;
        let sql = "select count(*) as images, coalesce(max(m.members), 0) as most from \
                   (select image_id, count(*) as members from image_members \
                   where image_id in (select id from images where owner = $1 and (visibility || '') = 'shared') \
                   group by image_id) as m";
        let row = tx.fetch_optional(sql, vec![Arg::text(project)]).await?;
        let row = row.ok_or_else(|| Error::internal("a count without a row"))?;
        Ok(ProjectQuota {
            own: own_limits(&mut tx, project).await?,
            usage: read_usage(&mut tx, project).await?,
            shared_images: row.count("images")?,
            most_members: row.count("most")?,
        })
    }

    async fn usage(&self, project: &ProjectId) -> Result<Usage> {
        let mut tx = self.db.read().await?;
        read_usage(&mut tx, project).await
    }

    async fn check_bytes(
        &self,
        project: &ProjectId,
        bytes: ByteSize,
        limit: ByteLimit,
    ) -> Result<()> {
        let mut tx = self.db.read().await?;
        let own = own_limits(&mut tx, project).await?;
        let usage = read_usage(&mut tx, project).await?;
        if bytes > room(&usage, own, limit) {
            return Err(ByteLimit::refusal());
        }
        Ok(())
    }

    async fn set_limits(
        &self,
        project: &ProjectId,
        change: &LimitChange,
        line: &AuditEvent,
    ) -> Result<OwnLimits> {
        again_on_contention!(self.set_limits_once(project, change, line))
    }

    async fn reset_limits(&self, project: &ProjectId, line: &AuditEvent) -> Result<bool> {
        again_on_contention!(self.reset_limits_once(project, line))
    }

    async fn reserve(&self, blob: BlobId, more: Reservation) -> Result<ByteSize> {
        again_on_contention!(self.reserve_once(blob, more))
    }
}

impl SqlCatalog {
    async fn set_limits_once(
        &self,
        project: &ProjectId,
        change: &LimitChange,
        line: &AuditEvent,
    ) -> Result<OwnLimits> {
        let mut tx = self.db.write().await?;
        // The lock lets nobody go on by the old limits once this has returned.
        Account::open(&mut tx, project).await?;
        let mut own = own_limits(&mut tx, project).await?;
        own.images = change.images.unwrap_or(own.images);
        own.members = change.members.unwrap_or(own.members);
        own.bytes = change.bytes.unwrap_or(own.bytes);
        let sql = "insert into project_limits (project, images, members, bytes) \
                   values ($1, $2, $3, $4) on conflict (project) do update set \
                   images = excluded.images, members = excluded.members, bytes = excluded.bytes";
        let args = vec![
            Arg::text(project),
            limit_arg(own.images),
            limit_arg(own.members),
            limit_arg(own.bytes),
        ];
        tx.execute(sql, args).await?;
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(own)
    }

    async fn reset_limits_once(&self, project: &ProjectId, line: &AuditEvent) -> Result<bool> {
        let mut tx = self.db.write().await?;
        Account::open(&mut tx, project).await?;
        let sql = "delete from project_limits where project = $1";
        if tx.execute(sql, vec![Arg::text(project)]).await? == 0 {
            return Ok(false);
        }
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn reserve_once(&self, blob: BlobId, more: Reservation) -> Result<ByteSize> {
        let mut tx = self.db.write().await?;
        let ended = || Error::new(ErrorKind::Gone, "The writing was ended by another.");
        let Some(project) = lock_usage_of_blob(&mut tx, blob).await? else {
            return Err(ended());
        };
        let mut account = Account::open(&mut tx, &project).await?;
        let granted = account.reserve(more)?;
        account.save(&mut tx).await?;
        let sql = "update blobs set reserved = reserved + $3 where id = $1 and state = 'writing' \
                   and reserved_for = $2 and (exists (select 1 from images where uploading_blob = $1) \
                   or exists (select 1 from jobs where target_blob = $1))";
        let args = vec![
            Arg::text(blob),
            Arg::text(&project),
            size_arg(Some(granted))?,
        ];
        if tx.execute(sql, args).await? == 0 {
            return Err(ended());
        }
        tx.commit().await?;
        Ok(granted)
    }
}
