//! Whose turn it is.
//!
//! A project's jobs wait in the order in which they are due. Of the projects whose first job is due, the turn is the one's of
//! which the fewest jobs run. What a pick reads grows with the projects that have unfinished jobs and with the jobs that run,
//! and not with the jobs that wait.

use std::time::Duration;

use calotype_core::job::Claim;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

use super::endings::work_of;
use super::parts::begin_whole;
use super::{COLUMNS, job_of};
use crate::SqlCatalog;
use crate::db::{Arg, Tx};

/// The projects with a job that is due, in turn. Each step of the recursion seeks the next project in an index.
const TURNS: &str = "\
    with recursive queued (project) as ( \
        select (select project from jobs where ended_at is null order by project limit 1) \
        union all \
        select (select j.project from jobs j where j.ended_at is null and j.project > q.project \
                order by j.project limit 1) \
        from queued q where q.project is not null \
    ) \
    select f.project from ( \
        select q.project, \
            (select min(j.due_at) from jobs j \
             where j.project = q.project and j.ended_at is null) as due_at, \
            (select j.created_at from jobs j where j.project = q.project and j.ended_at is null \
             order by j.due_at, j.created_at, j.id limit 1) as created_at \
        from queued q where q.project is not null \
    ) f where f.due_at <= $1 \
    order by (select count(*) from jobs r where r.project = f.project and r.ended_at is null \
              and r.lease_owner is not null and r.due_at > $1), f.due_at, f.created_at, f.project \
    limit 8";

impl SqlCatalog {
    pub(super) async fn pick_job_once(
        &self,
        worker: &str,
        lease: Duration,
    ) -> Result<Option<Claim>> {
        // Mostly there is nothing to do: a poll must not take the writer.
        let mut tx = self.db.read().await?;
        let now = tx.now().await?;
        let sql = "select min(due_at) as due_at from jobs where ended_at is null";
        let first = tx.fetch_optional(sql, Vec::new()).await?;
        let first = first.map_or(Ok(None), |row| row.opt_time("due_at"))?;
        if first.is_none_or(|first| first > now) {
            return Ok(None);
        }
        drop(tx);

        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let Some(id) = lock_next(&mut tx, now).await? else {
            return Ok(None);
        };
        let sql = format!(
            "update jobs set status = 'RUNNING', attempt = attempt + 1, \
             deaths = case when lease_owner is null then deaths else deaths + 1 end, \
             lease_owner = $2, due_at = $3, started_at = coalesce(started_at, $4), \
             attempt_at = $4, resumed_bytes = done_bytes where id = $1 \
             returning {COLUMNS}, work, deaths, cancelled"
        );
        let args = vec![
            Arg::text(&id),
            Arg::text(worker),
            Arg::time(now.plus(lease)),
            Arg::time(now),
        ];
        let Some(row) = tx.fetch_optional(sql, args).await? else {
            return Err(Error::internal("a locked job is gone"));
        };
        let job = job_of(&row)?;
        if let Some(image) = job.image {
            let sql = "update images set status = 'saving', updated_at = $2, \
                       version = version + 1 where id = $1 and status = 'queued'";
            tx.execute(sql, vec![Arg::text(image), Arg::time(now)])
                .await?;
        }
        if let Some(whole) = &job.parent {
            begin_whole(&mut tx, whole, now).await?;
        }
        let work = work_of(&row)?;
        let deaths = u32::try_from(row.int("deaths")?).unwrap_or(u32::MAX);
        let cancelled = row.bool("cancelled")?;
        tx.commit().await?;
        let attempt = job.attempt;
        Ok(Some(Claim {
            job,
            attempt,
            work,
            deaths,
            cancelled,
        }))
    }
}

/// Locks the job whose turn it is, and gives its id. Those that somebody else is picking are passed over.
async fn lock_next(tx: &mut Tx, now: Timestamp) -> Result<Option<String>> {
    for turn in tx.fetch_all(TURNS, vec![Arg::time(now)]).await? {
        let sql = "select id from jobs where project = $1 and ended_at is null and due_at <= $2 \
                   order by due_at, created_at, id limit 1";
        let args = vec![Arg::text(turn.text("project")?), Arg::time(now)];
        let lock = "for update skip locked";
        if let Some(row) = tx.fetch_locked(sql, lock, args).await? {
            return row.text("id").map(Some);
        }
    }
    Ok(None)
}
