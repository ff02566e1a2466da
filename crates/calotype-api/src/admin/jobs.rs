//! The jobs of the caller's project.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::Error;
use calotype_core::codes::ImsCode;
use calotype_core::id::JobId;
use http::StatusCode;
use serde_json::json;

use crate::caller::Caller;
use crate::errors::Reply;
use crate::ims::job_document::{job_document, listed_document};
use crate::state::ApiState;

/// Lists the jobs of the caller's project, newest first.
#[utoipa::path(
    get,
    path = "/admin/v1/jobs",
    operation_id = "listJobs",
    tag = "Jobs",
    params(
        ("status" = Option<String>, Query, description = "INIT, RUNNING, SUCCESS or FAIL."),
        ("limit" = Option<u32>, Query, description = "100 by default, 1 to 1000."),
        ("marker" = Option<String>, Query, description = "The last job of the page before."),
    ),
    responses(
        (status = 200, description = "The jobs; `next_marker` where there may be more."),
        (status = 400, description = "A value that its parameter does not have."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The credential has no project."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_jobs(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    let params = super::params(query.as_deref())?;
    let status = super::parsed(&params, "status")?;
    let after = super::parsed(&params, "marker")?;
    let limit = super::limit(&params)?;
    let jobs = state
        .service
        .jobs(&call, status, after.as_ref(), limit)
        .await?;
    let now = state.service.clock().now();
    let documents: Vec<_> = jobs.iter().map(|job| listed_document(job, now)).collect();
    let mut body = json!({ "jobs": documents });
    if let (Some(last), true) = (jobs.last(), jobs.len() == limit as usize) {
        body["next_marker"] = last.id.as_str().into();
    }
    Ok(Json(body).into_response())
}

/// Cancels a job. A job that no worker has ends at once, a running one within seconds: as FAIL, with its reason, and
/// with nothing left of what it was making.
#[utoipa::path(
    delete,
    path = "/admin/v1/jobs/{job_id}",
    operation_id = "cancelJob",
    tag = "Jobs",
    params(("job_id" = String, Path, description = "The job: 32 lower-case hexadecimal digits.")),
    responses(
        (status = 202, description = "The job, which has ended or will."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not cancel jobs (IMG.0026)."),
        (status = 404, description = "There is no such job for the caller (IMG.0023)."),
        (status = 409, description = "The job has ended."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn cancel_job(
    State(state): State<ApiState>,
    Caller(call): Caller,
    id: Result<Path<String>, PathRejection>,
) -> Reply {
    let id: Option<JobId> = id.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.ok_or_else(|| Error::ims(ImsCode::IMG_0023))?;
    let job = state.service.cancel_job(&call, &id).await?;
    let document = job_document(&job, &[], state.service.clock().now());
    Ok((StatusCode::ACCEPTED, Json(document)).into_response())
}
