//! Roles on enterprise projects: a call of ours, beside those of Keystone that give roles in projects.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::Result;
use calotype_core::ports::AssignmentTarget;
use calotype_identity::keystone;
use http::HeaderMap;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::id;
use super::roles::{Change, change};
use crate::caller::Caller;
use crate::errors::Reply;

/// The roles that a user has on an enterprise project in a project.
#[utoipa::path(get, path = "/admin/v1/enterprise-projects/{id}/projects/{project_id}/users/{user_id}/roles",
    tag = "Administration", operation_id = "listEnterpriseRoles",
    security(("token" = []), ("signature" = [])),
    params(("id" = String, Path), ("project_id" = String, Path), ("user_id" = String, Path)),
    responses((status = 200, description = "The roles"), Refusals))]
pub(super) async fn list_enterprise_roles(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path((group, project, user)): Path<(String, String, String)>,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let (target, user_id) = (target(&group, &project)?, id(&user)?);
    let roles = state.identity.roles_of(&administrator, &user_id, &target);
    let roles = roles.await?;
    let base = state.base_url(&headers);
    let path =
        format!("admin/v1/enterprise-projects/{group}/projects/{project}/users/{user}/roles");
    let mut document = keystone::roles(&roles, &base, "roles");
    document["links"]["self"] = format!("{base}/{path}").into();
    Ok(Json(document).into_response())
}

/// Gives a user a role on an enterprise project in a project. It permits what enterprise projects may permit, on the
/// project's images in it alone.
#[utoipa::path(put, path = "/admin/v1/enterprise-projects/{id}/projects/{project_id}/users/{user_id}/roles/{role_id}",
    tag = "Administration", operation_id = "assignEnterpriseRole",
    security(("token" = []), ("signature" = [])),
    params(("id" = String, Path), ("project_id" = String, Path), ("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn assign_enterprise_role(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((group, project, user, role)): Path<(String, String, String, String)>,
) -> Reply {
    let target = target(&group, &project);
    change(&state, &call, Change::Give, &user, &role, target).await
}

/// Takes a role from a user on an enterprise project in a project.
#[utoipa::path(delete, path = "/admin/v1/enterprise-projects/{id}/projects/{project_id}/users/{user_id}/roles/{role_id}",
    tag = "Administration", operation_id = "unassignEnterpriseRole",
    security(("token" = []), ("signature" = [])),
    params(("id" = String, Path), ("project_id" = String, Path), ("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn unassign_enterprise_role(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((group, project, user, role)): Path<(String, String, String, String)>,
) -> Reply {
    let target = target(&group, &project);
    change(&state, &call, Change::Take, &user, &role, target).await
}

fn target(group: &str, project: &str) -> Result<AssignmentTarget> {
    Ok(AssignmentTarget::EnterpriseProject(
        id(group)?,
        id(project)?,
    ))
}
