//! Roles, and who has them where.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use calotype_core::Result;
use calotype_core::app::Call;
use calotype_core::ports::AssignmentTarget;
use calotype_identity::keystone;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::{Filter, id, json};
use crate::caller::Caller;
use crate::errors::Reply;

#[derive(Deserialize)]
struct NewRoleBody {
    role: NewRoleFields,
}

#[derive(Deserialize)]
struct NewRoleFields {
    name: String,
}

/// The roles.
#[utoipa::path(get, path = "/identity/v3/roles", tag = "Identity", operation_id = "listRoles",
    security(("token" = []), ("signature" = [])),
    params(("name" = Option<String>, Query)), responses((status = 200, description = "The roles"), Refusals))]
pub(super) async fn list_roles(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    filter: Filter,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let roles = state
        .identity
        .roles(&administrator, filter.name.as_deref())
        .await?;
    Ok(Json(keystone::roles(&roles, &state.base_url(&headers), "roles")).into_response())
}

/// Makes a role.
#[utoipa::path(post, path = "/identity/v3/roles", tag = "Identity", operation_id = "createRole",
    security(("token" = []), ("signature" = [])),
    responses((status = 201, description = "The role"), Refusals))]
pub(super) async fn create_role(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let name = json::<NewRoleBody>(body).await?.role.name;
    let role = state.identity.create_role(&administrator, name).await?;
    let document = keystone::role(&role, &state.base_url(&headers));
    Ok((StatusCode::CREATED, Json(document)).into_response())
}

/// A role.
#[utoipa::path(get, path = "/identity/v3/roles/{role_id}", tag = "Identity", operation_id = "showRole",
    security(("token" = []), ("signature" = [])),
    params(("role_id" = String, Path)), responses((status = 200, description = "The role"), Refusals))]
pub(super) async fn show_role(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(role): Path<String>,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let role = state.identity.role(&administrator, &id(&role)?).await?;
    Ok(Json(keystone::role(&role, &state.base_url(&headers))).into_response())
}

/// Removes a role, also from all who have it.
#[utoipa::path(delete, path = "/identity/v3/roles/{role_id}", tag = "Identity", operation_id = "deleteRole",
    security(("token" = []), ("signature" = [])),
    params(("role_id" = String, Path)), responses((status = 204, description = "Removed"), Refusals))]
pub(super) async fn delete_role(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path(role): Path<String>,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    state
        .identity
        .delete_role(&administrator, &id(&role)?)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The roles that a user has in a project.
#[utoipa::path(get, path = "/identity/v3/projects/{project_id}/users/{user_id}/roles", tag = "Identity", operation_id = "listRolesInProject",
    security(("token" = []), ("signature" = [])),
    params(("project_id" = String, Path), ("user_id" = String, Path)),
    responses((status = 200, description = "The roles"), Refusals))]
pub(super) async fn roles_in_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path((project, user)): Path<(String, String)>,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let target = AssignmentTarget::Project(id(&project)?);
    let roles = state
        .identity
        .roles_of(&administrator, &id(&user)?, &target)
        .await?;
    let path = format!("projects/{project}/users/{user}/roles");
    Ok(Json(keystone::roles(&roles, &state.base_url(&headers), &path)).into_response())
}

/// Gives a user a role in a project.
#[utoipa::path(put, path = "/identity/v3/projects/{project_id}/users/{user_id}/roles/{role_id}", tag = "Identity", operation_id = "assignRoleInProject",
    security(("token" = []), ("signature" = [])),
    params(("project_id" = String, Path), ("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn assign_in_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((project, user, role)): Path<(String, String, String)>,
) -> Reply {
    let target = id(&project).map(AssignmentTarget::Project);
    change(&state, &call, Change::Give, &user, &role, target).await
}

/// Takes a role from a user in a project.
#[utoipa::path(delete, path = "/identity/v3/projects/{project_id}/users/{user_id}/roles/{role_id}", tag = "Identity", operation_id = "unassignRoleInProject",
    security(("token" = []), ("signature" = [])),
    params(("project_id" = String, Path), ("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn unassign_in_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((project, user, role)): Path<(String, String, String)>,
) -> Reply {
    let target = id(&project).map(AssignmentTarget::Project);
    change(&state, &call, Change::Take, &user, &role, target).await
}

/// Gives a user a role on a domain.
#[utoipa::path(put, path = "/identity/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}", tag = "Identity", operation_id = "assignRoleOnDomain",
    security(("token" = []), ("signature" = [])),
    params(("domain_id" = String, Path), ("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn assign_on_domain(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((domain, user, role)): Path<(String, String, String)>,
) -> Reply {
    let target = id(&domain).map(AssignmentTarget::Domain);
    change(&state, &call, Change::Give, &user, &role, target).await
}

/// Takes a role from a user on a domain.
#[utoipa::path(delete, path = "/identity/v3/domains/{domain_id}/users/{user_id}/roles/{role_id}", tag = "Identity", operation_id = "unassignRoleOnDomain",
    security(("token" = []), ("signature" = [])),
    params(("domain_id" = String, Path), ("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn unassign_on_domain(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((domain, user, role)): Path<(String, String, String)>,
) -> Reply {
    let target = id(&domain).map(AssignmentTarget::Domain);
    change(&state, &call, Change::Take, &user, &role, target).await
}

/// Gives a user a role on the system.
#[utoipa::path(put, path = "/identity/v3/system/users/{user_id}/roles/{role_id}", tag = "Identity", operation_id = "assignRoleOnSystem",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn assign_on_system(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((user, role)): Path<(String, String)>,
) -> Reply {
    let target = Ok(AssignmentTarget::System);
    change(&state, &call, Change::Give, &user, &role, target).await
}

/// Takes a role from a user on the system.
#[utoipa::path(delete, path = "/identity/v3/system/users/{user_id}/roles/{role_id}", tag = "Identity", operation_id = "unassignRoleOnSystem",
    security(("token" = []), ("signature" = [])),
    params(("user_id" = String, Path), ("role_id" = String, Path)),
    responses((status = 204, description = "Done"), Refusals))]
pub(super) async fn unassign_on_system(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path((user, role)): Path<(String, String)>,
) -> Reply {
    let target = Ok(AssignmentTarget::System);
    change(&state, &call, Change::Take, &user, &role, target).await
}

/// What becomes of an assignment.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Give,
    Take,
}

/// Gives a user a role at a target, or takes it away. What the request names is judged after its caller.
pub(super) async fn change(
    state: &IdentityState,
    call: &Call,
    change: Change,
    user: &str,
    role: &str,
    target: Result<AssignmentTarget>,
) -> Reply {
    let administrator = state.identity.administrator(call)?;
    let (user, role, target) = (id(user)?, id(role)?, target?);
    let identity = &state.identity;
    match change {
        Change::Give => identity.assign(&administrator, &user, &role, target).await,
        Change::Take => {
            identity
                .unassign(&administrator, &user, &role, target)
                .await
        }
    }?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
