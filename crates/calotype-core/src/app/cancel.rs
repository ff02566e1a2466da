//! Cancelling a job.

use super::{Call, Service, sees_job};
use crate::access::Action;
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::JobId;
use crate::job::{Job, JobFailure};

/// Why a cancelled job failed. The table has no code for it: this is its word for a task that did not do its work.
pub(super) const CANCELLED: ImsCode = ImsCode::IMG_0014;

/// What a worker is told of.
pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Conflict, "The job was cancelled.").with_code(CANCELLED)
}

impl Service {
    /// Cancels a job of the caller's project, or any for an administrator: who may ask for such a job in the whole project may
    /// cancel it, and who may in an enterprise project alone, what was asked for by itself. One that runs ends within
    /// seconds, as FAIL; nothing is left of what it was making.
    ///
    /// # Errors
    /// Forbidden (IMG.0026); IMG.0023 where there is none that the caller may see; Conflict where the job has ended.
    pub async fn cancel_job(&self, call: &Call, id: &JobId) -> Result<Job> {
        let allowed = self.authorize_within(call, Action::ImagesGet)?;
        let project = match allowed.in_all_projects() {
            true => None,
            false => Some(call.principal.require_project()?),
        };
        let job = self.catalog.job(id).await?;
        let job = job.filter(|job| sees_job(&allowed, job));
        let job = job.ok_or_else(|| Error::ims(ImsCode::IMG_0023))?;
        let action = job.job_type.action();
        // Sharing is nothing that an enterprise project permits.
        let may = match action {
            Action::ImagesShare => self.authorize(call, action)?,
            _ => self.authorize_within(call, action)?,
        };
        if !sees_job(&may, &job) {
            return Err(Error::ims(ImsCode::IMG_0026));
        }
        let failure = JobFailure {
            code: CANCELLED,
            reason: cancelled().message().to_owned(),
        };
        let trail = self.trail(call, "cancelJob", id);
        let job = self
            .catalog
            .cancel_job(id, project, &failure, trail)
            .await?;
        job.ok_or_else(|| Error::ims(ImsCode::IMG_0023))
    }
}
