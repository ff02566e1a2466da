//! The verifier on a live system.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse as _;

use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// Checks the invariants. Changes nothing but the marks of damaged images.
#[utoipa::path(
    get,
    path = "/admin/v1/verify",
    operation_id = "verify",
    tag = "Administration",
    params(("deep" = Option<bool>, Query, description = "true: every page of every blob is opened.")),
    responses(
        (status = 200, description = "What was checked, and the invariants that are broken: none where all is well."),
        (status = 400, description = "A value that its parameter does not have."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller does not run the service."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn verify(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    let params = super::params(query.as_deref())?;
    let deep = super::parsed(&params, "deep")?.unwrap_or(false);
    let verification = state.service.verify_for(&call, deep).await?;
    Ok(Json(verification).into_response())
}
