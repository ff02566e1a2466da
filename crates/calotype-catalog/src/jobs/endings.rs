//! The endings of jobs: what an attempt that still has its job writes with its last transaction.

use calotype_core::id::{BlobId, ImageId, JobId};
use calotype_core::job::{
    JobFailure, JobStatus, JobType, Release, ReplicaBytes, Replication, Work,
};
use calotype_core::ports::{BlobFacts, ByteLimit};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

use super::moves::give_up_copy;
use crate::db::{Arg, Row, Tx};
use crate::rows::{burn_image, lock_image, one, size_arg};
use crate::usage::{end_reservation, holds, lock_usage_of_owner, remove_image, store_blob};

/// Why an attempt could not let go of its job: it was cancelled, or the attempt does not have it any more.
pub(super) async fn why_not(tx: &mut Tx, job: &JobId, attempt: i64) -> Result<Release> {
    let sql = "select id from jobs where id = $1 and attempt = $2 and ended_at is null \
               and lease_owner is not null and cancelled";
    let args = vec![Arg::text(job), attempt.into()];
    Ok(match tx.fetch_optional(sql, args).await? {
        Some(_) => Release::Cancelled,
        None => Release::Lost,
    })
}

/// What an unfinished job is about.
pub(super) struct Held {
    job_type: JobType,
    pub(super) image: Option<ImageId>,
    pub(super) work: Work,
    /// The job that it is a part of.
    pub(super) parent: Option<JobId>,
}

/// What an unfinished job has to do.
pub(super) fn work_of(row: &Row) -> Result<Work> {
    let work: Option<Work> = row.json("work")?;
    work.ok_or_else(|| Error::internal("an unfinished job has nothing to do"))
}

pub(super) fn held_of(row: &Row) -> Result<Held> {
    Ok(Held {
        job_type: row.parsed("job_type")?,
        image: row.opt_parsed("image_id")?,
        work: work_of(row)?,
        parent: row.opt_parsed("parent")?,
    })
}

/// What the job is about, if this attempt has it. Read before the locks that the ending takes: none of it
/// changes while the job is unfinished, and [`end_job`] checks the attempt again.
pub(super) async fn held_by(tx: &mut Tx, job: &JobId, attempt: i64) -> Result<Option<Held>> {
    let sql = "select job_type, image_id, work, parent from jobs \
               where id = $1 and attempt = $2 and ended_at is null and lease_owner is not null";
    let row = tx
        .fetch_optional(sql, vec![Arg::text(job), attempt.into()])
        .await?;
    row.as_ref().map(held_of).transpose()
}

/// Ends a job that makes an image active well, if this attempt still has it and nobody cancelled it: the image has the blob
/// that the job made, which these facts make a stored one, or else shares its source's; and the disk's size, where it is given.
/// Who shares a blob pays since its submission, so that then nothing of the project's usage changes, and it is not locked.
pub(super) async fn end_well(
    tx: &mut Tx,
    job: &JobId,
    attempt: i64,
    held: &Held,
    facts: Option<&BlobFacts>,
    virtual_size: Option<ByteSize>,
    now: Timestamp,
) -> Result<bool> {
    let blob = held.work.target_blob().or(held.work.source_blob());
    let (Some(image), Some(blob)) = (held.image, blob) else {
        return Err(Error::internal("a job names no image or no blob"));
    };
    if facts.is_some() {
        lock_usage_of_owner(tx, image).await?;
    }
    if !end_job(tx, job, attempt, JobStatus::Success, None, now).await? {
        return Ok(false);
    }
    let Some(row) = lock_image(tx, image).await? else {
        return Err(Error::internal("the image of an unfinished job is gone"));
    };
    // As much was reserved as it takes, so no limit is asked for.
    if let Some(facts) = facts
        && !store_blob(tx, &row.owner, blob, facts, ByteLimit::NONE).await?
    {
        return Err(Error::internal("a job's new blob is not being written"));
    }
    keep_blob(tx, blob).await?;
    // The wrap that the image's readers are to use; none: the one in the blob's manifest.
    let wrapped = match &held.work {
        Work::Replicate(Replication {
            bytes: ReplicaBytes::Share { wrapped },
            ..
        }) => wrapped.as_ref(),
        Work::Replicate(_)
        | Work::ChangeMembers(_)
        | Work::Import(_)
        | Work::Export(_)
        | Work::Move(_)
        | Work::Parts => None,
    };
    let wrapped = wrapped.map(serde_json::to_string).transpose();
    let sql = "update images set status = 'active', blob = $2, active_at = $3, \
               updated_at = $3, version = version + 1, wrapped_key = $4, \
               size = (select b.size from blobs b where b.id = $2), \
               virtual_size = coalesce($5, virtual_size), \
               damaged_at = (select b.damaged_at from blobs b where b.id = $2), \
               md5 = coalesce((select b.md5 from blobs b where b.id = $2), md5), \
               sha256 = coalesce((select b.sha256 from blobs b where b.id = $2), sha256), \
               sha512 = coalesce((select b.sha512 from blobs b where b.id = $2), sha512) \
               where id = $1 and status in ('queued', 'saving')";
    let args = vec![
        Arg::text(image),
        Arg::text(blob),
        Arg::time(now),
        Arg::opt_text(wrapped.map_err(Error::internal)?),
        size_arg(virtual_size)?,
    ];
    let changed = tx.execute(sql, args).await?;
    one(changed, "the image of an unfinished job is not being made")?;
    Ok(true)
}

/// Takes back that a blob may be deleted: an image is about to refer to it, and a job did until now.
async fn keep_blob(tx: &mut Tx, blob: BlobId) -> Result<()> {
    let sql = "select deletable_at from blobs where id = $1 and state = 'stored'";
    // Who releases the blob waits for this, or this for it. Others that end with the same blob do not.
    let row = tx
        .fetch_locked(sql, "for key share", vec![Arg::text(blob)])
        .await?;
    let row = row.ok_or_else(|| Error::internal("a job holds a blob that is not stored"))?;
    if row.opt_time("deletable_at")?.is_none() {
        return Ok(());
    }
    let sql = "update blobs set deletable_at = null where id = $1 and state = 'stored'";
    let changed = tx.execute(sql, vec![Arg::text(blob)]).await?;
    one(changed, "a locked blob is gone")
}

/// Removes what a job that has ended badly was making. The usage of its image's owner is locked.
pub(super) async fn undo(tx: &mut Tx, held: &Held, now: Timestamp) -> Result<()> {
    if held.job_type.makes_its_image()
        && let Some(image) = held.image
        && let Some(row) = lock_image(tx, image).await?
    {
        let shared = match (held.work.source_blob(), held.work.target_blob()) {
            (Some(blob), None) => {
                let last = !holds(tx, &row.owner, blob, None).await?;
                Some((size_of(tx, blob).await?, last))
            }
            _ => None,
        };
        remove_image(tx, &row.owner, shared).await?;
        burn_image(tx, image, now).await?;
    }
    if held.job_type == JobType::NativeImportImage
        && let Some(image) = held.image
        && let Work::Import(import) = &held.work
    {
        let [disk, container] = import.filled;
        let sql = "update images set status = 'queued', updated_at = $2, version = version + 1, \
                   disk_format = case when $3 then null else disk_format end, \
                   container_format = case when $4 then null else container_format end, \
                   cmk_id = case when $5 then null else cmk_id end \
                   where id = $1 and status in ('queued', 'saving')";
        let args = vec![
            Arg::text(image),
            Arg::time(now),
            disk.into(),
            container.into(),
            import.target_cmk.is_some().into(),
        ];
        tx.execute(sql, args).await?;
    }
    if let Work::Move(order) = &held.work {
        give_up_copy(tx, order, now).await?;
    }
    if let Some(target) = held.work.target_blob() {
        end_reservation(tx, target).await?;
        let sql = "update blobs set state = 'deleting' where id = $1 and state = 'writing'";
        tx.execute(sql, vec![Arg::text(target)]).await?;
    }
    Ok(())
}

async fn size_of(tx: &mut Tx, blob: BlobId) -> Result<ByteSize> {
    let sql = "select size from blobs where id = $1 and state = 'stored'";
    let row = tx.fetch_optional(sql, vec![Arg::text(blob)]).await?;
    let row = row.ok_or_else(|| Error::internal("a job holds a blob that is not stored"))?;
    Ok(ByteSize::new(row.count("size")?))
}

/// Ends the job `$1`: it lets go of its lease and of its blobs.
pub(super) const END_JOB: &str = "update jobs set status = $2, error_code = $3, fail_reason = $4, ended_at = $5, \
     done_bytes = case when $2 = 'SUCCESS' then total_bytes else done_bytes end, \
     lease_owner = null, blob = null, target_blob = null, work = null";

pub(super) fn end_args(
    job: &JobId,
    status: JobStatus,
    failure: Option<&JobFailure>,
    now: Timestamp,
) -> Vec<Arg> {
    vec![
        Arg::text(job),
        Arg::text(status),
        Arg::opt_text(failure.map(|failure| failure.code)),
        Arg::opt_text(failure.map(|failure| &failure.reason)),
        Arg::time(now),
    ]
}

/// Ends the job, if this attempt still has it; well only where it was not cancelled.
pub(super) async fn end_job(
    tx: &mut Tx,
    job: &JobId,
    attempt: i64,
    status: JobStatus,
    failure: Option<&JobFailure>,
    now: Timestamp,
) -> Result<bool> {
    let sql = format!(
        "{END_JOB} where id = $1 and attempt = $6 and ended_at is null and lease_owner is not null \
         and (not cancelled or $2 <> 'SUCCESS')"
    );
    let mut args = end_args(job, status, failure, now);
    args.push(attempt.into());
    Ok(tx.execute(sql, args).await? == 1)
}
