//! Jobs with parts, and how they go with these.
//!
//! A job with parts is nobody's: it runs when the first of them does, and the transaction that ends the last of them ends it
//! too. Whoever ends a part locks its job last of all, and so sees what others have ended: one of two that end the last two
//! parts at once ends the job.

use calotype_core::id::{ImageId, JobId};
use calotype_core::job::{JobFailure, JobStatus, JobType};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

use super::endings::{END_JOB, end_args, held_of, undo};
use crate::db::{Arg, Tx};
use crate::rows::one;
use crate::usage::lock_usage_of_owner;

/// How far a job is: one with parts, as far as they are together, until it has ended.
pub(super) const DONE_BYTES: &str = "coalesce((select cast(sum(p.done_bytes) as bigint) from jobs p \
    where p.parent = jobs.id and jobs.ended_at is null), jobs.done_bytes) as done_bytes";

/// The job that a picked one is a part of runs from now on.
pub(super) async fn begin_whole(tx: &mut Tx, whole: &JobId, now: Timestamp) -> Result<()> {
    let sql = "update jobs set status = 'RUNNING', started_at = coalesce(started_at, $2) \
               where id = $1 and status = 'INIT'";
    let args = vec![Arg::text(whole), Arg::time(now)];
    tx.execute(sql, args).await.map(drop)
}

/// Ends the job that one which has ended was the last unfinished part of, if it was a part.
pub(super) async fn end_whole(tx: &mut Tx, whole: Option<&JobId>, now: Timestamp) -> Result<()> {
    let Some(whole) = whole else { return Ok(()) };
    let this = || vec![Arg::text(whole)];
    let sql = "select id from jobs where id = $1 and ended_at is null and job_type = $2";
    let args = vec![Arg::text(whole), Arg::text(JobType::ImportOvaImage)];
    if tx.fetch_locked(sql, "for update", args).await?.is_none() {
        return Ok(());
    }
    let sql = "select id from jobs where parent = $1 and ended_at is null limit 1";
    if tx.fetch_optional(sql, this()).await?.is_some() {
        return Ok(());
    }
    let sql = "select error_code, fail_reason from jobs where parent = $1 and status = 'FAIL' \
               order by created_at, id limit 1";
    let failed = tx.fetch_optional(sql, this()).await?;
    let failure = failed.map(|row| {
        let code = row.text("error_code")?.parse();
        Ok::<_, Error>(JobFailure {
            code: code.map_err(|()| Error::internal("a job holds an unknown error code"))?,
            reason: row.opt_text("fail_reason")?.unwrap_or_default(),
        })
    });
    let failure = failure.transpose()?;
    let status = match failure {
        None => JobStatus::Success,
        Some(_) => JobStatus::Fail,
    };
    let sql = "update jobs set done_bytes = (select cast(sum(p.done_bytes) as bigint) from jobs p \
               where p.parent = $1) where id = $1";
    tx.execute(sql, this()).await?;
    let sql = format!("{END_JOB} where id = $1");
    let args = end_args(whole, status, failure.as_ref(), now);
    one(tx.execute(sql, args).await?, "a locked job is gone")
}

/// Asks for the end of all unfinished parts of a job. False where there is none.
pub(super) async fn cancel_parts(
    tx: &mut Tx,
    whole: &JobId,
    failure: &JobFailure,
    now: Timestamp,
) -> Result<bool> {
    let sql = "select id, image_id from jobs where parent = $1 and ended_at is null order by id";
    let rows = tx.fetch_all(sql, vec![Arg::text(whole)]).await?;
    // The usage comes before the jobs. It is one for all of them.
    for row in &rows {
        let image: Option<ImageId> = row.opt_parsed("image_id")?;
        if let Some(image) = image {
            lock_usage_of_owner(tx, image).await?;
        }
    }
    let mut unfinished = false;
    for row in &rows {
        unfinished |= cancel_unfinished(tx, &row.parsed("id")?, failure, now).await?;
    }
    if unfinished {
        end_whole(tx, Some(whole), now).await?;
    }
    Ok(unfinished)
}

/// Ends a job that no worker has, and marks another for its worker to end. False, and nothing changed, where it has ended. The
/// usage of its image's owner is locked.
pub(super) async fn cancel_unfinished(
    tx: &mut Tx,
    id: &JobId,
    failure: &JobFailure,
    now: Timestamp,
) -> Result<bool> {
    let sql =
        "select lease_owner, ended_at, job_type, image_id, work, parent from jobs where id = $1";
    let row = tx
        .fetch_locked(sql, "for update", vec![Arg::text(id)])
        .await?;
    let row = row.ok_or_else(|| Error::internal("a job is gone"))?;
    if row.opt_int("ended_at")?.is_some() {
        return Ok(false);
    }
    if row.opt_text("lease_owner")?.is_some() {
        let sql = "update jobs set cancelled = $2 where id = $1";
        tx.execute(sql, vec![Arg::text(id), true.into()]).await?;
        return Ok(true);
    }
    let held = held_of(&row)?;
    let sql = format!("{END_JOB} where id = $1");
    let args = end_args(id, JobStatus::Fail, Some(failure), now);
    one(tx.execute(sql, args).await?, "a locked job is gone")?;
    undo(tx, &held, now).await?;
    Ok(true)
}
