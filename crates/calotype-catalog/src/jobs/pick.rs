//! Whose turn it is.
//!
//! A project's jobs wait in the order in which they are due. Of the projects whose first job is due, the turn is the one's of
//! which the fewest jobs run. What a pick reads grows with the projects that have unfinished jobs and with the jobs that run,
//! and not with the jobs that wait.

use std::collections::BTreeSet;
use std::time::Duration;

use calotype_core::job::Claim;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

use super::endings::work_of;
use super::parts::begin_whole;
use super::{COLUMNS, job_of};
use crate::SqlCatalog;
use crate::db::{Arg, Row, Tx};
use crate::rows::placeholders;

/// The projects with a job that is due, in turn, and how many jobs of each run. Each step of the recursion seeks the next
/// project in an index.
const TURNS: &str = "\
    with recursive queued (project) as ( \
        select (select project from jobs where ended_at is null order by project limit 1) \
        union all \
        select (select j.project from jobs j where j.ended_at is null and j.project > q.project \
                order by j.project limit 1) \
        from queued q where q.project is not null \
    ) \
    select f.project, (select count(*) from jobs r where r.project = f.project and r.ended_at is null \
        and r.lease_owner is not null and r.due_at > $1) as running \
    from ( \
        select q.project, \
            (select min(j.due_at) from jobs j \
             where j.project = q.project and j.ended_at is null) as due_at, \
            (select j.created_at from jobs j where j.project = q.project and j.ended_at is null \
             order by j.due_at, j.created_at, j.id limit 1) as created_at \
        from queued q where q.project is not null \
    ) f where f.due_at <= $1 \
    order by running, f.due_at, f.created_at, f.project limit 8";

/// A project whose turn it is.
struct Turn {
    project: String,
    /// Its jobs that run, those among them that are being picked.
    running: u64,
    /// Its jobs that are being picked.
    share: u64,
}

impl SqlCatalog {
    pub(super) async fn pick_jobs_once(
        &self,
        worker: &str,
        lease: Duration,
        most: usize,
    ) -> Result<Vec<Claim>> {
        // Mostly there is nothing to do: a poll must not take the writer.
        let mut tx = self.db.read().await?;
        let now = tx.now().await?;
        let sql = "select min(due_at) as due_at from jobs where ended_at is null";
        let first = tx.fetch_optional(sql, Vec::new()).await?;
        let first = first.map_or(Ok(None), |row| row.opt_time("due_at"))?;
        if first.is_none_or(|first| first > now) {
            return Ok(Vec::new());
        }
        drop(tx);

        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        let ids = lock_next(&mut tx, now, most).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let due = now.plus(lease);
        let mut args = vec![Arg::text(worker), Arg::time(due), Arg::time(now)];
        args.extend(ids.iter().map(Arg::text));
        let sql = format!(
            "update jobs set status = 'RUNNING', attempt = attempt + 1, \
             deaths = case when lease_owner is null then deaths else deaths + 1 end, \
             lease_owner = $1, due_at = $2, started_at = coalesce(started_at, $3), \
             attempt_at = $3, resumed_bytes = done_bytes where id in ({}) \
             returning {COLUMNS}, work, deaths, cancelled",
            placeholders(4, ids.len())
        );
        let rows = tx.fetch_all(sql, args).await?;
        if rows.len() != ids.len() {
            return Err(Error::internal("a locked job is gone"));
        }
        let claims: Vec<Claim> = rows.iter().map(claim_of).collect::<Result<_>>()?;
        let images: Vec<_> = claims.iter().filter_map(|claim| claim.job.image).collect();
        if !images.is_empty() {
            let mut args = vec![Arg::time(now)];
            args.extend(images.iter().map(Arg::text));
            let sql = format!(
                "update images set status = 'saving', updated_at = $1, version = version + 1 \
                 where id in ({}) and status = 'queued'",
                placeholders(2, images.len())
            );
            tx.execute(sql, args).await?;
        }
        // Each once, and in one order: others that pick at the same time take these locks too.
        let wholes = claims.iter().filter_map(|claim| claim.job.parent.as_ref());
        for whole in wholes.collect::<BTreeSet<_>>() {
            begin_whole(&mut tx, whole, now).await?;
        }
        tx.commit().await?;
        Ok(claims)
    }
}

fn claim_of(row: &Row) -> Result<Claim> {
    let job = job_of(row)?;
    Ok(Claim {
        attempt: job.attempt,
        work: work_of(row)?,
        deaths: u32::try_from(row.int("deaths")?).unwrap_or(u32::MAX),
        cancelled: row.bool("cancelled")?,
        job,
    })
}

/// Locks the jobs whose turn it is, and gives their ids. Those that somebody else is picking are passed over.
async fn lock_next(tx: &mut Tx, now: Timestamp, most: usize) -> Result<Vec<String>> {
    let rows = tx.fetch_all(TURNS, vec![Arg::time(now)]).await?;
    let turns = rows.iter().map(|row| {
        Ok(Turn {
            project: row.text("project")?,
            running: row.count("running")?,
            share: 0,
        })
    });
    let mut turns: Vec<Turn> = turns.collect::<Result<_>>()?;
    share(&mut turns, most);
    let mut ids = Vec::new();
    // Who passes over what is locked never waits, so the order of the locks is nobody's concern.
    for turn in turns {
        let sql = "select id from jobs where project = $1 and ended_at is null and due_at <= $2 \
                   order by due_at, created_at, id limit $3";
        let limit = i64::try_from(turn.share).unwrap_or(i64::MAX);
        let args = vec![Arg::text(turn.project), Arg::time(now), limit.into()];
        let rows = tx
            .fetch_all_locked(sql, "for update skip locked", args)
            .await?;
        for row in rows {
            ids.push(row.text("id")?);
        }
    }
    Ok(ids)
}

/// Deals so many picks out, each to the project of which then the fewest jobs run.
fn share(turns: &mut [Turn], picks: usize) {
    for _ in 0..picks {
        // Of several, one that has no share yet, for it is known to have a job, and then the first: they are in turn.
        let next = turns
            .iter_mut()
            .min_by_key(|turn| (turn.running, turn.share));
        if let Some(turn) = next {
            turn.running += 1;
            turn.share += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(running: &[u64], picks: usize) -> Vec<u64> {
        let turn = |&running: &u64| Turn {
            project: String::new(),
            running,
            share: 0,
        };
        let mut turns: Vec<Turn> = running.iter().map(turn).collect();
        share(&mut turns, picks);
        turns.iter().map(|turn| turn.share).collect()
    }

    #[test]
    fn picks_even_out_what_runs() {
        assert_eq!(shares(&[], 8), [0; 0]);
        assert_eq!(shares(&[3], 8), [8]);
        assert_eq!(shares(&[0, 0, 0], 4), [2, 1, 1]);
        assert_eq!(shares(&[0, 2, 5], 4), [3, 1, 0]);
        assert_eq!(shares(&[0, 2, 5], 2), [2, 0, 0]);
        assert_eq!(shares(&[0, 1], 2), [1, 1]);
    }
}
