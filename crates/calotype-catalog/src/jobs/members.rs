//! Jobs about members: a step is one image with all its projects, and one transaction.
//!
//! The step's effect and its results are written together, under the job's attempt. So a job whose worker died is gone
//! on with at the first image that it has no results of, and what was done is not done again.

use calotype_core::codes::ImsCode;
use calotype_core::id::{JobId, ProjectId};
use calotype_core::image::{MemberStatus, Visibility};
use calotype_core::job::{JobStatus, MemberResult, MembersVerb, Release, Work};
use calotype_core::ports::{AuditEvent, MembersStep, NewMembersJob, Trail};
use calotype_core::{Error, Result};

use super::endings::{end_job, why_not};
use super::submit::check_concurrency;
use crate::SqlCatalog;
use crate::db::{Arg, Tx};
use crate::ledger::insert_event;
use crate::members::{count_members, insert_member, leave_private_if_empty, show_to_members};
use crate::rows::{LockedImage, lock_image, write_trail};
use crate::usage::{Account, lock_usage_of_owner, most_members};

impl SqlCatalog {
    pub(super) async fn submit_members_once(
        &self,
        members: &NewMembersJob,
        trail: &Trail,
    ) -> Result<()> {
        let NewMembersJob { job, change, .. } = members;
        let mut tx = self.db.write().await?;
        // Of many that ask at once, each counts those before it.
        Account::open(&mut tx, &job.project).await?;
        let family = job.job_type.family();
        check_concurrency(&mut tx, &job.project, family, members.concurrency).await?;
        let work = Work::ChangeMembers(change.clone());
        self.insert_job(&mut tx, job, &work, None).await?;
        write_trail(&mut tx, trail, self.options.answers_kept).await?;
        self.commit_and_ring(tx).await
    }

    pub(super) async fn change_members_once(
        &self,
        job: &JobId,
        attempt: i64,
        step: &MembersStep,
    ) -> Result<Release> {
        let mut tx = self.db.write().await?;
        // Before the job, as all take them: the owner's limits are read under it.
        lock_usage_of_owner(&mut tx, step.image).await?;
        let sql = "select results from jobs where id = $1 and attempt = $2 \
                   and ended_at is null and lease_owner is not null and not cancelled";
        let args = vec![Arg::text(job), attempt.into()];
        let Some(row) = tx.fetch_locked(sql, "for update", args).await? else {
            return why_not(&mut tx, job, attempt).await;
        };
        let mut results: Vec<MemberResult> = row.json("results")?;
        if let Some(version) = step.version {
            let image = lock_image(&mut tx, step.image).await?;
            let image = image.filter(|image| image.version == version);
            let image = image.ok_or_else(|| Error::conflict("The image was changed meanwhile."))?;
            results.extend(change_image(&mut tx, job, step, &image).await?);
        } else {
            results.extend(step.pairs.iter().cloned());
        }
        // What got further is not what workers die of.
        let sql = "update jobs set results = $2, deaths = 0 where id = $1";
        let results = serde_json::to_string(&results).map_err(Error::internal)?;
        tx.execute(sql, vec![Arg::text(job), Arg::text(results)])
            .await?;
        tx.commit().await?;
        Ok(Release::Done)
    }

    pub(super) async fn finish_steps_once(&self, job: &JobId, attempt: i64) -> Result<Release> {
        let mut tx = self.db.write().await?;
        let now = tx.now().await?;
        if !end_job(&mut tx, job, attempt, JobStatus::Success, None, now).await? {
            return why_not(&mut tx, job, attempt).await;
        }
        tx.commit().await?;
        Ok(Release::Done)
    }
}

/// What became of a project that was not refused before.
enum Became {
    /// It is as it was to be already.
    Same,
    Changed,
    Refused(ImsCode),
}

/// Does a step on an image that is locked.
async fn change_image(
    tx: &mut Tx,
    job: &JobId,
    step: &MembersStep,
    image: &LockedImage,
) -> Result<Vec<MemberResult>> {
    let private = image.visibility == Visibility::Private;
    let any = step.pairs.iter().any(|pair| pair.refused.is_none());
    if step.verb == MembersVerb::Add && private && any {
        // Whom it was shared with before it became private is not asked for now.
        let sql = "delete from image_members where image_id = $1";
        tx.execute(sql, vec![Arg::text(step.image)]).await?;
    }
    let mut results = Vec::with_capacity(step.pairs.len());
    let mut changed = false;
    for pair in &step.pairs {
        let mut result = pair.clone();
        if pair.refused.is_none() {
            match change_pair(tx, step, image, &pair.project).await? {
                Became::Same => {}
                Became::Changed => {
                    changed = true;
                    insert_event(tx, &line_of(step, job, &pair.project)).await?;
                }
                Became::Refused(code) => result.refused = Some(code),
            }
        }
        results.push(result);
    }
    match step.verb {
        MembersVerb::Add if changed && private => {
            show_to_members(tx, step.image, step.line.at).await?;
        }
        MembersVerb::Remove if changed => {
            leave_private_if_empty(tx, step.image, step.line.at).await?;
        }
        _ => {}
    }
    Ok(results)
}

async fn change_pair(
    tx: &mut Tx,
    step: &MembersStep,
    image: &LockedImage,
    project: &ProjectId,
) -> Result<Became> {
    let pair = || vec![Arg::text(step.image), Arg::text(project)];
    let is_member = "select project from image_members where image_id = $1 and project = $2";
    match step.verb {
        MembersVerb::Add => {
            if tx.fetch_optional(is_member, pair()).await?.is_some() {
                // Who rejected it is offered it again.
                let from = MemberStatus::Rejected;
                return move_member(tx, step, project, Some(from), MemberStatus::Pending).await;
            }
            let most = most_members(tx, &image.owner, step.limit).await?;
            if count_members(tx, step.image).await? >= most {
                return Ok(Became::Refused(ImsCode::IMG_0088));
            }
            insert_member(tx, step.image, image.created_at, project, step.line.at).await?;
            Ok(Became::Changed)
        }
        MembersVerb::Remove => {
            let sql = "delete from image_members where image_id = $1 and project = $2";
            Ok(match tx.execute(sql, pair()).await? {
                0 => Became::Refused(ImsCode::IMG_0113),
                _ => Became::Changed,
            })
        }
        MembersVerb::Accept { .. } | MembersVerb::Reject => {
            if tx.fetch_optional(is_member, pair()).await?.is_none() {
                return Ok(Became::Refused(ImsCode::IMG_0114));
            }
            let to = match step.verb {
                MembersVerb::Reject => MemberStatus::Rejected,
                _ => MemberStatus::Accepted,
            };
            move_member(tx, step, project, None, to).await
        }
    }
}

/// Moves a member to a status, from one other where one is given.
async fn move_member(
    tx: &mut Tx,
    step: &MembersStep,
    project: &ProjectId,
    from: Option<MemberStatus>,
    to: MemberStatus,
) -> Result<Became> {
    let sql = "update image_members set status = $3, updated_at = $4 where image_id = $1 \
               and project = $2 and status <> $3 and ($5 is null or status = $5)";
    let args = vec![
        Arg::text(step.image),
        Arg::text(project),
        Arg::text(to),
        Arg::time(step.line.at),
        Arg::opt_text(from),
    ];
    Ok(match tx.execute(sql, args).await? {
        0 => Became::Same,
        _ => Became::Changed,
    })
}

fn line_of(step: &MembersStep, job: &JobId, project: &ProjectId) -> AuditEvent {
    AuditEvent {
        detail: serde_json::json!({ "member": project.as_str(), "job_id": job.as_str() }),
        ..step.line.clone()
    }
}
