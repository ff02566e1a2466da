//! Following a job: `GET /v1/{project_id}/jobs/{job_id}` (spec 5.1) and the progress API (spec 5.6).

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::app::Call;
use calotype_core::codes::ImsCode;
use calotype_core::id::JobId;
use calotype_core::job::Job;
use calotype_core::{Error, Result};

use super::job_document::{job_document, progress_document};
use super::path::check_project;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// Shows a job of the caller's project.
#[utoipa::path(
    get,
    path = "/v1/{project_id}/jobs/{job_id}",
    operation_id = "showJob",
    tag = "Jobs",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("job_id" = String, Path, description = "32 lower-case hexadecimal digits."),
    ),
    responses(
        (status = 200, description = "The job."),
        (status = 400, description = "The project is not the credential's (IMG.0030)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not see images (IMG.0026)."),
        (status = 404, description = "There is no such job for the caller (IMG.0023)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_job(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Reply {
    let Path((project, job)) = path.map_err(|_| Error::ims(ImsCode::IMG_0023))?;
    check_project(&state, &call, &project)?;
    let job = find(&state, &call, &job).await?;
    if job.project.as_str() != project {
        return Err(Error::ims(ImsCode::IMG_0023).into());
    }
    let (parts, now) = (
        state.service.sub_jobs(&call, &job).await?,
        state.service.clock().now(),
    );
    Ok(Json(job_document(&job, &parts, now)).into_response())
}

/// Shows how far a job of the caller's project is.
#[utoipa::path(
    get,
    path = "/v1/cloudimages/job/{job_id}",
    operation_id = "showJobProgress",
    tag = "Jobs",
    params(("job_id" = String, Path, description = "32 lower-case hexadecimal digits.")),
    responses(
        (status = 200, description = "The job, with `process_percent` and `current_task`."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not see images (IMG.0026)."),
        (status = 404, description = "There is no such job for the caller (IMG.0023)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_job_progress(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    let Path(job) = path.map_err(|_| Error::ims(ImsCode::IMG_0023))?;
    let job = find(&state, &call, &job).await?;
    let (parts, now) = (
        state.service.sub_jobs(&call, &job).await?,
        state.service.clock().now(),
    );
    Ok(Json(progress_document(&job, &parts, now)).into_response())
}

/// A malformed id names no job (decision D2).
async fn find(state: &ApiState, call: &Call, id: &str) -> Result<Job> {
    let id: JobId = id.parse().map_err(|_| Error::ims(ImsCode::IMG_0023))?;
    state.service.job(call, &id).await
}
