//! Enterprise projects: the groups that images can be put into (spec 2, `[ep]`).

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::app::Call;
use calotype_core::codes::ImsCode;
use calotype_core::id::EnterpriseProjectId;
use calotype_core::ports::EnterpriseProject;
use calotype_core::{Error, Result};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bad;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::idempotency::{IdempotencyKey, keeping, once};
use crate::json_body::{json_object, optional_text, read_body};
use crate::state::ApiState;

/// The body of a request to make an enterprise project, for the API's description.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CreateEnterpriseProject {
    /// The name: 1 to 64 characters, unique.
    pub name: String,
}

/// Lists the enterprise projects, by name.
#[utoipa::path(
    get,
    path = "/admin/v1/enterprise-projects",
    operation_id = "listEnterpriseProjects",
    tag = "Administration",
    responses(
        (status = 200, description = "The enterprise projects."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller is no administrator."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_enterprise_projects(
    State(state): State<ApiState>,
    Caller(call): Caller,
) -> Reply {
    let projects = state.service.enterprise_projects(&call).await?;
    let projects: Vec<_> = projects.iter().map(document).collect();
    Ok(Json(json!({ "enterprise_projects": projects })).into_response())
}

/// Makes an enterprise project.
#[utoipa::path(
    post,
    path = "/admin/v1/enterprise-projects",
    operation_id = "createEnterpriseProject",
    tag = "Administration",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateEnterpriseProject, content_type = "application/json"),
    responses(
        (status = 201, description = "The enterprise project."),
        (status = 400, description = "The name breaks a rule."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller is no administrator."),
        (status = 409, description = "The name is taken, or the idempotency key came with another body."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn create_enterprise_project(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Reply {
    check_administrator(&state, &call)?;
    let body = read_body(&state, body).await?;
    let name = optional_text(&mut json_object(&body)?, "name")?;
    let name = name.ok_or_else(|| bad("The field 'name' is missing."))?;
    let slot = key.slot(&call, &body);
    let service = &state.service;
    once(service, slot.as_ref(), async {
        let keep = keeping(slot.as_ref(), |slot, project: &EnterpriseProject| {
            let text = document(project).to_string();
            slot.answer(service, StatusCode::CREATED, text, None)
        });
        let project = service
            .create_enterprise_project(&call, &name, keep.as_deref())
            .await?;
        Ok((StatusCode::CREATED, Json(document(&project))).into_response())
    })
    .await
}

/// Lets images be put into an enterprise project.
#[utoipa::path(
    post,
    path = "/admin/v1/enterprise-projects/{id}/enable",
    operation_id = "enableEnterpriseProject",
    tag = "Administration",
    params(("id" = String, Path, description = "The enterprise project's id.")),
    responses(
        (status = 204, description = "It is enabled."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller is no administrator."),
        (status = 404, description = "There is no such enterprise project."),
        (status = 409, description = "The default enterprise project is always enabled."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn enable_enterprise_project(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    set_enabled(&state, &call, path, true).await
}

/// Lets no more images be put into an enterprise project. Those in it stay.
#[utoipa::path(
    post,
    path = "/admin/v1/enterprise-projects/{id}/disable",
    operation_id = "disableEnterpriseProject",
    tag = "Administration",
    params(("id" = String, Path, description = "The enterprise project's id.")),
    responses(
        (status = 204, description = "It is disabled."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller is no administrator."),
        (status = 404, description = "There is no such enterprise project."),
        (status = 409, description = "The default enterprise project is always enabled."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn disable_enterprise_project(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    set_enabled(&state, &call, path, false).await
}

async fn set_enabled(
    state: &ApiState,
    call: &Call,
    path: Result<Path<String>, PathRejection>,
    enabled: bool,
) -> Reply {
    check_administrator(state, call)?;
    let id: Option<EnterpriseProjectId> = path.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.ok_or_else(|| {
        Error::not_found("There is no such enterprise project.").with_code(ImsCode::IMG_0121)
    })?;
    state
        .service
        .set_enterprise_project_enabled(call, id, enabled)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Nothing of the request is judged before its caller is.
fn check_administrator(state: &ApiState, call: &Call) -> Result<()> {
    let access = state.service.access();
    access
        .authorize(&call.principal, Action::IdentityAdminister)
        .map(drop)
}

fn document(project: &EnterpriseProject) -> Value {
    json!({
        "id": project.id.to_string(),
        "name": project.name,
        "enabled": project.enabled,
        "created_at": project.created_at.to_seconds(),
    })
}
