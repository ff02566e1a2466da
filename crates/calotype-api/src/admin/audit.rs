//! The audit trail: who did what.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::id::ProjectId;
use calotype_core::ports::AuditEvent;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// Shows the audit trail, newest first: the caller's project's, or every project's for who runs the service.
#[utoipa::path(
    get,
    path = "/admin/v1/audit",
    operation_id = "showAuditTrail",
    tag = "Administration",
    params(
        ("before" = Option<i64>, Query, description = "Only events older than the one with this number."),
        ("limit" = Option<u32>, Query, description = "100 by default, 1 to 1000."),
    ),
    responses(
        (status = 200, description = "The events; `next_before` where there may be more."),
        (status = 400, description = "A value that its parameter does not have."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not see it."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_audit_trail(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    let params = super::params(query.as_deref())?;
    let before = super::parsed(&params, "before")?;
    let limit = super::limit(&params)?;
    let events = state.service.audit_trail(&call, before, limit).await?;
    let documents: Vec<_> = events.iter().map(document).collect();
    let mut body = json!({ "events": documents });
    if let (Some((number, _)), true) = (events.last(), events.len() == limit as usize) {
        body["next_before"] = (*number).into();
    }
    Ok(Json(body).into_response())
}

fn document((number, event): &(i64, AuditEvent)) -> Value {
    json!({
        "id": number,
        "time": event.at.to_millis(),
        "trace_name": event.trace,
        "request_id": event.request_id,
        "project_id": event.project.as_ref().map(ProjectId::as_str),
        "user_id": event.user.as_str(),
        "resource_type": event.resource_type,
        "resource_id": event.resource_id,
        "detail": event.detail,
    })
}
