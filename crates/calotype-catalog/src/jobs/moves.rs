//! Moves of blobs between stores.
//!
//! The transaction that ends a move well is the move: before it the blob is where it was, after it where it was to be. The copy on
//! the other side has a record from the move's beginning to its own end, so no sweep takes it for garbage too early.

use std::time::Duration;

use calotype_core::error::ErrorKind;
use calotype_core::id::{BlobId, JobId};
use calotype_core::job::{BlobMove, JobStatus, JobType, Release, Work};
use calotype_core::ports::{NewMove, Place, Trail};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

use super::endings::{end_job, held_by, why_not};
use crate::SqlCatalog;
use crate::db::{Arg, Tx};
use crate::places::{place_arg, place_of};
use crate::rows::{one, write_trail};

impl SqlCatalog {
    pub(super) async fn submit_move_once(&self, order: &NewMove, trail: &Trail) -> Result<()> {
        let blob = order.blob;
        let mut tx = self.db.write().await?;
        // The lock keeps the blob until the job holds it, and a second move waits for it.
        let sql = "select id, store, place from blobs where id = $1 and state = 'stored'";
        let row = tx
            .fetch_locked(sql, "for update", vec![Arg::text(blob)])
            .await?;
        let from = row.as_ref().map(place_of).transpose()?;
        let from = from.ok_or_else(|| Error::not_found("There is no such blob."))?;
        if from.store == order.to.store {
            return Err(Error::conflict("The bytes are in this store already."));
        }
        let sql = "select id from jobs where blob = $1 and job_type = $2 and ended_at is null";
        let args = vec![Arg::text(blob), Arg::text(JobType::MoveBlob)];
        if tx.fetch_optional(sql, args).await?.is_some() {
            return Err(Error::conflict("The bytes are being moved already."));
        }
        let work = Work::Move(BlobMove {
            blob,
            from,
            to: order.to.clone(),
        });
        self.insert_job(&mut tx, &order.job, &work, None).await?;
        write_copy(&mut tx, blob, &order.to, &order.job.id, "arriving", None).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        self.commit_and_ring(tx).await
    }

    pub(super) async fn finish_move_once(
        &self,
        job: &JobId,
        attempt: i64,
        grace: Duration,
    ) -> Result<Release> {
        let mut tx = self.db.write().await?;
        let Some(held) = held_by(&mut tx, job, attempt).await? else {
            return Ok(Release::Lost);
        };
        let Work::Move(BlobMove { blob, from, to }) = &held.work else {
            return Err(Error::internal("a job that moves nothing ends as a move"));
        };
        let now = tx.now().await?;
        if !end_job(&mut tx, job, attempt, JobStatus::Success, None, now).await? {
            return why_not(&mut tx, job, attempt).await;
        }
        let sql = "update blobs set store = $2, place = $3 where id = $1 and state = 'stored' \
                   and store = $4 and coalesce(place, id) = $5";
        let args = vec![
            Arg::text(blob),
            Arg::text(&to.store),
            place_arg(*blob, to),
            Arg::text(&from.store),
            Arg::text(from.id),
        ];
        let changed = tx.execute(sql, args).await?;
        one(changed, "a blob that a job moves is not where it was")?;
        let sql = "delete from blob_copies where store = $1 and id = $2 and state = 'arriving'";
        let args = vec![Arg::text(&to.store), Arg::text(to.id)];
        let changed = tx.execute(sql, args).await?;
        one(changed, "a copy that a job has made is not on record")?;
        let until = now.plus(grace);
        write_copy(&mut tx, *blob, from, job, "leaving", Some(until)).await?;
        tx.commit().await?;
        Ok(Release::Done)
    }
}

/// What a move that has ended badly has made of its copy goes at once: nobody has read it.
pub(super) async fn give_up_copy(tx: &mut Tx, order: &BlobMove, now: Timestamp) -> Result<()> {
    let sql = "update blob_copies set state = 'leaving', deletable_at = $3 \
               where store = $1 and id = $2 and state = 'arriving'";
    let args = vec![
        Arg::text(&order.to.store),
        Arg::text(order.to.id),
        Arg::time(now),
    ];
    tx.execute(sql, args).await.map(drop)
}

async fn write_copy(
    tx: &mut Tx,
    blob: BlobId,
    place: &Place,
    job: &JobId,
    state: &'static str,
    deletable_at: Option<Timestamp>,
) -> Result<()> {
    let sql = "insert into blob_copies (store, id, blob, job, state, deletable_at) \
               values ($1, $2, $3, $4, $5, $6)";
    let args = vec![
        Arg::text(&place.store),
        Arg::text(place.id),
        Arg::text(blob),
        Arg::text(job),
        Arg::text(state),
        Arg::opt_time(deletable_at),
    ];
    let written = tx.execute(sql, args).await;
    written.map(drop).map_err(|error| match error.kind() {
        ErrorKind::Conflict => Error::internal("a place in a store is used twice"),
        _ => error,
    })
}
