//! Jobs: accepting, picking, heartbeats and endings.
//!
//! A job's attempt is its fencing token. Every write of a worker names it, in the statement that changes
//! the row, so a worker that lost its job changes nothing. A worker's death shows as a lease that ended:
//! the job is then due again.

use std::time::Duration;

use calotype_core::codes::ImsCode;
use calotype_core::id::{JobId, ProjectId};
use calotype_core::job::{
    Claim, Heartbeat, Job, JobFailure, JobFamily, JobStatus, JobType, Progress, Release,
};
use calotype_core::ports::{
    BlobFacts, ImageLimit, Jobs, MembersStep, NewDisksImport, NewExport, NewImport, NewMembersJob,
    NewMove, NewReplica, StoredAnswer, Trail,
};
use calotype_core::size::ByteSize;
use calotype_core::{Error, Result};
use tokio::sync::Notify;

use self::endings::{end_job, end_well, held_by, undo, why_not};
use self::parts::{DONE_BYTES, cancel_parts, cancel_unfinished, end_whole};
use self::submit::check_concurrency;
use crate::SqlCatalog;
use crate::db::{Arg, Row, again_on_contention};
use crate::rows::{size_arg, write_trail};
use crate::usage::{lock_usage_of_owner, own_limits, read_usage};

mod endings;
mod members;
mod moves;
mod parts;
mod pick;
mod submit;

const COLUMNS: &str = "id, project, user_id, job_type, status, source_image, image_id, \
    image_name, done_bytes, total_bytes, noted_bytes, resumed_bytes, attempt, error_code, \
    fail_reason, created_at, started_at, attempt_at, ended_at, results, parent";

fn job_of(row: &Row) -> Result<Job> {
    let failure = match row.opt_text("error_code")? {
        None => None,
        Some(code) => Some(JobFailure {
            code: code
                .parse()
                .map_err(|()| Error::internal("a job holds an unknown error code"))?,
            reason: row.opt_text("fail_reason")?.unwrap_or_default(),
        }),
    };
    Ok(Job {
        id: row.parsed("id")?,
        project: row.parsed("project")?,
        user: row.parsed("user_id")?,
        job_type: row.parsed("job_type")?,
        status: row.parsed("status")?,
        source: row.opt_parsed("source_image")?,
        image: row.opt_parsed("image_id")?,
        image_name: row.opt_text("image_name")?,
        progress: Progress {
            done: ByteSize::new(row.count("done_bytes")?),
            total: ByteSize::new(row.count("total_bytes")?),
            noted: ByteSize::new(row.count("noted_bytes")?),
            resumed: ByteSize::new(row.count("resumed_bytes")?),
        },
        attempt: row.int("attempt")?,
        failure,
        results: row.json("results")?,
        parent: row.opt_parsed("parent")?,
        created_at: row.time("created_at")?,
        started_at: row.opt_time("started_at")?,
        attempt_at: row.opt_time("attempt_at")?,
        ended_at: row.opt_time("ended_at")?,
    })
}

#[async_trait::async_trait]
impl Jobs for SqlCatalog {
    async fn check_room(
        &self,
        project: &ProjectId,
        image_limit: Option<ImageLimit>,
        family: JobFamily,
        concurrency: u64,
    ) -> Result<()> {
        let mut tx = self.db.read().await?;
        if let Some(limit) = image_limit {
            let own = own_limits(&mut tx, project).await?.images;
            let most = own.or(Some(limit.0)).unwrap_or(u64::MAX);
            if read_usage(&mut tx, project).await?.images >= most {
                return Err(Error::ims(ImsCode::IMG_0015));
            }
        }
        check_concurrency(&mut tx, project, family, concurrency).await
    }

    async fn submit_replica(&self, replica: &NewReplica, trail: Trail) -> Result<()> {
        again_on_contention!(self.submit_replica_once(replica, &trail))
    }

    async fn submit_members(&self, members: &NewMembersJob, trail: Trail) -> Result<()> {
        again_on_contention!(self.submit_members_once(members, &trail))
    }

    async fn change_members(
        &self,
        job: &JobId,
        attempt: i64,
        step: &MembersStep,
    ) -> Result<Release> {
        again_on_contention!(self.change_members_once(job, attempt, step))
    }

    async fn finish_steps(&self, job: &JobId, attempt: i64) -> Result<Release> {
        again_on_contention!(self.finish_steps_once(job, attempt))
    }

    async fn submit_import(&self, import: &NewImport, trail: Trail) -> Result<()> {
        again_on_contention!(self.submit_import_once(import, &trail))
    }

    async fn submit_disks(
        &self,
        disks: &NewDisksImport,
        answer: Option<StoredAnswer>,
    ) -> Result<()> {
        again_on_contention!(self.submit_disks_once(disks, answer.as_ref()))
    }

    async fn submit_export(&self, export: &NewExport, trail: Trail) -> Result<()> {
        again_on_contention!(self.submit_export_once(export, &trail))
    }

    async fn submit_move(&self, order: &NewMove, trail: Trail) -> Result<()> {
        again_on_contention!(self.submit_move_once(order, &trail))
    }

    async fn finish_move(&self, job: &JobId, attempt: i64, grace: Duration) -> Result<Release> {
        again_on_contention!(self.finish_move_once(job, attempt, grace))
    }

    async fn pick_jobs(&self, worker: &str, lease: Duration, most: usize) -> Result<Vec<Claim>> {
        again_on_contention!(self.pick_jobs_once(worker, lease, most))
    }

    async fn heartbeat(
        &self,
        job: &JobId,
        attempt: i64,
        progress: Progress,
        lease: Duration,
    ) -> Result<Heartbeat> {
        again_on_contention!(self.heartbeat_once(job, attempt, progress, lease))
    }

    async fn finish_share(&self, job: &JobId, attempt: i64) -> Result<Release> {
        again_on_contention!(self.finish_once(job, attempt, None, None))
    }

    async fn finish_reseal(&self, job: &JobId, attempt: i64, facts: &BlobFacts) -> Result<Release> {
        again_on_contention!(self.finish_once(job, attempt, Some(facts), None))
    }

    async fn finish_import(
        &self,
        job: &JobId,
        attempt: i64,
        facts: &BlobFacts,
        virtual_size: Option<ByteSize>,
    ) -> Result<Release> {
        again_on_contention!(self.finish_once(job, attempt, Some(facts), virtual_size))
    }

    async fn fail_job(&self, job: &JobId, attempt: i64, failure: &JobFailure) -> Result<bool> {
        again_on_contention!(self.fail_job_once(job, attempt, failure))
    }

    async fn hand_back(&self, job: &JobId, attempt: i64, delay: Duration) -> Result<Release> {
        again_on_contention!(self.hand_back_once(job, attempt, delay))
    }

    async fn cancel_job(
        &self,
        id: &JobId,
        project: Option<&ProjectId>,
        failure: &JobFailure,
        trail: Trail,
    ) -> Result<Option<Job>> {
        again_on_contention!(self.cancel_job_once(id, project, failure, &trail))
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>> {
        let mut tx = self.db.read().await?;
        let columns = COLUMNS.replace("done_bytes", DONE_BYTES);
        let sql = format!("select {columns} from jobs where id = $1");
        let row = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
        row.as_ref().map(job_of).transpose()
    }

    async fn sub_jobs(&self, parent: &JobId) -> Result<Vec<Job>> {
        let sql = format!("select {COLUMNS} from jobs where parent = $1 order by created_at, id");
        let rows = self.db.fetch_all(sql, vec![Arg::text(parent)]).await?;
        rows.iter().map(job_of).collect()
    }

    async fn list_jobs(
        &self,
        project: &ProjectId,
        status: Option<JobStatus>,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<Job>> {
        let mut tx = self.db.read().await?;
        let mut args = vec![Arg::text(project)];
        // Results can be many, and a list has many jobs.
        let columns = COLUMNS.replace("results", "null as results");
        let columns = columns.replace("done_bytes", DONE_BYTES);
        let mut sql = format!("select {columns} from jobs where project = $1 and parent is null");
        if let Some(status) = status {
            args.push(Arg::text(status));
            sql.push_str(&format!(" and status = ${}", args.len()));
        }
        if let Some(after) = after {
            let find = "select created_at from jobs where id = $1 and project = $2";
            let own = vec![Arg::text(after), Arg::text(project)];
            let Some(row) = tx.fetch_optional(find, own).await? else {
                return Err(Error::not_found("There is no such job."));
            };
            let n = args.len();
            args.push(row.int("created_at")?.into());
            args.push(Arg::text(after));
            sql.push_str(&format!(" and (created_at, id) < (${}, ${})", n + 1, n + 2));
        }
        args.push(i64::from(limit).into());
        let n = args.len();
        sql.push_str(&format!(" order by created_at desc, id desc limit ${n}"));
        tx.fetch_all(sql, args).await?.iter().map(job_of).collect()
    }

    async fn unfinished_jobs(&self) -> Result<(u64, u64)> {
        let mut tx = self.db.read().await?;
        let sql = "select coalesce(sum(case when status = 'INIT' then 1 else 0 end), 0) as waiting, \
                   coalesce(sum(case when status = 'RUNNING' then 1 else 0 end), 0) as running \
                   from jobs where ended_at is null and parent is null";
        let row = tx.fetch_optional(sql, Vec::new()).await?;
        row.map_or(Ok((0, 0)), |row| {
            Ok((row.count("waiting")?, row.count("running")?))
        })
    }

    fn bell(&self) -> &Notify {
        &self.bell
    }
}

impl SqlCatalog {
    async fn heartbeat_once(
        &self,
        job: &JobId,
        attempt: i64,
        progress: Progress,
        lease: Duration,
    ) -> Result<Heartbeat> {
        let mut tx = self.db.write().await?;
        let due = tx.now().await?.plus(lease);
        // A death that left more behind than all before it got the job further.
        let sql = "update jobs set deaths = case when noted_bytes < $6 then 0 else deaths end, \
                   noted_bytes = case when noted_bytes < $6 then $6 else noted_bytes end, \
                   done_bytes = $3, total_bytes = $4, due_at = $5, resumed_bytes = $7 \
                   where id = $1 and attempt = $2 and ended_at is null \
                   and lease_owner is not null returning cancelled";
        let args = vec![
            Arg::text(job),
            attempt.into(),
            size_arg(Some(progress.done))?,
            size_arg(Some(progress.total))?,
            Arg::time(due),
            size_arg(Some(progress.noted))?,
            size_arg(Some(progress.resumed))?,
        ];
        let row = tx.fetch_optional(sql, args).await?;
        tx.commit().await?;
        match row {
            None => Ok(Heartbeat::Lost),
            Some(row) if row.bool("cancelled")? => Ok(Heartbeat::Cancelled),
            Some(_) => Ok(Heartbeat::Continue),
        }
    }

    /// Ends well a job that makes an image's bytes, or gives it a share in some.
    async fn finish_once(
        &self,
        job: &JobId,
        attempt: i64,
        facts: Option<&BlobFacts>,
        virtual_size: Option<ByteSize>,
    ) -> Result<Release> {
        let mut tx = self.db.write().await?;
        let Some(held) = held_by(&mut tx, job, attempt).await? else {
            return Ok(Release::Lost);
        };
        let now = tx.now().await?;
        if !end_well(&mut tx, job, attempt, &held, facts, virtual_size, now).await? {
            return why_not(&mut tx, job, attempt).await;
        }
        end_whole(&mut tx, held.parent.as_ref(), now).await?;
        tx.commit().await?;
        Ok(Release::Done)
    }

    async fn cancel_job_once(
        &self,
        id: &JobId,
        project: Option<&ProjectId>,
        failure: &JobFailure,
        trail: &Trail,
    ) -> Result<Option<Job>> {
        let mut tx = self.db.write().await?;
        let sql = format!("select {COLUMNS} from jobs where id = $1");
        let found = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
        let Some(job) = found.as_ref().map(job_of).transpose()? else {
            return Ok(None);
        };
        if project.is_some_and(|project| *project != job.project) {
            return Ok(None);
        }
        // The order in which all take their locks: usage, job, image, blob, the job that it is a part of.
        let now = tx.now().await?;
        let unfinished = if job.job_type == JobType::ImportOvaImage {
            cancel_parts(&mut tx, id, failure, now).await?
        } else {
            if let Some(image) = job.image {
                lock_usage_of_owner(&mut tx, image).await?;
            }
            let unfinished = cancel_unfinished(&mut tx, id, failure, now).await?;
            end_whole(&mut tx, job.parent.as_ref(), now).await?;
            unfinished
        };
        if !unfinished {
            return Err(Error::conflict("The job has ended."));
        }
        let sql = format!("select {COLUMNS} from jobs where id = $1");
        let row = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
        let job = row.as_ref().map(job_of).transpose()?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        tx.commit().await?;
        Ok(job)
    }

    async fn fail_job_once(&self, job: &JobId, attempt: i64, failure: &JobFailure) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let Some(held) = held_by(&mut tx, job, attempt).await? else {
            return Ok(false);
        };
        let now = tx.now().await?;
        if let Some(image) = held.image {
            lock_usage_of_owner(&mut tx, image).await?;
        }
        if !end_job(&mut tx, job, attempt, JobStatus::Fail, Some(failure), now).await? {
            return Ok(false);
        }
        undo(&mut tx, &held, now).await?;
        end_whole(&mut tx, held.parent.as_ref(), now).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn hand_back_once(&self, job: &JobId, attempt: i64, delay: Duration) -> Result<Release> {
        let mut tx = self.db.write().await?;
        let due = tx.now().await?.plus(delay);
        let sql = "update jobs set lease_owner = null, due_at = $3, attempt_at = null \
                   where id = $1 and attempt = $2 and ended_at is null \
                   and lease_owner is not null and not cancelled";
        let args = vec![Arg::text(job), attempt.into(), Arg::time(due)];
        if tx.execute(sql, args).await? == 0 {
            return why_not(&mut tx, job, attempt).await;
        }
        self.commit_and_ring(tx).await?;
        Ok(Release::Done)
    }
}
