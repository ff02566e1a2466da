//! Projects.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use calotype_core::id::{DomainId, ProjectId};
use calotype_identity::{NewProject, keystone};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::IdentityState;
use super::refusals::Refusals;
use super::request::{EnabledFilter, Filter, id, json, optional_id};
use crate::caller::Caller;
use crate::errors::Reply;

#[derive(Deserialize)]
struct NewProjectBody {
    project: NewProjectFields,
}

#[derive(Deserialize)]
struct NewProjectFields {
    name: String,
    domain_id: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct ChangedProjectBody {
    project: ChangedProjectFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedProjectFields {
    enabled: bool,
}

/// The projects that the caller can ask a token for.
#[utoipa::path(get, path = "/identity/v3/auth/projects", tag = "Identity", operation_id = "listOwnProjects",
    security(("token" = []), ("signature" = [])),
    responses((status = 200, description = "The projects"), Refusals))]
pub(super) async fn own_projects(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
) -> Reply {
    let projects = state.identity.own_projects(&call.principal).await?;
    let base = state.base_url(&headers);
    Ok(Json(keystone::projects(&projects, &base, "auth/projects")).into_response())
}

/// The projects that the caller may see.
#[utoipa::path(get, path = "/identity/v3/projects", tag = "Identity", operation_id = "listProjects",
    security(("token" = []), ("signature" = [])),
    params(("name" = Option<String>, Query), ("domain_id" = Option<String>, Query),
        EnabledFilter),
    responses((status = 200, description = "The projects"), Refusals))]
pub(super) async fn list_projects(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    filter: Filter,
) -> Reply {
    let base = state.base_url(&headers);
    // An id that can't be one is that of no domain.
    let domain = filter.domain_id.as_deref().map(str::parse::<DomainId>);
    let mut projects = match domain.transpose() {
        Ok(domain) => {
            let (name, domain) = (filter.name.as_deref(), domain.as_ref());
            state
                .identity
                .visible_projects(&call.principal, name, domain)
                .await?
        }
        Err(_) => Vec::new(),
    };
    projects.retain(|project| filter.admits(project.enabled));
    if projects.is_empty() && filter.name.is_some() {
        // As Keystone, whose word for this the clients wait for: they then take what they were given for an id,
        // and so share an image with a project that they can't see. An administrator sees that there is none.
        state.identity.administrator(&call)?;
    }
    Ok(Json(keystone::projects(&projects, &base, "projects")).into_response())
}

/// Makes a project.
#[utoipa::path(post, path = "/identity/v3/projects", tag = "Identity", operation_id = "createProject",
    security(("token" = []), ("signature" = [])),
    responses((status = 201, description = "The project"), Refusals))]
pub(super) async fn create_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let fields = json::<NewProjectBody>(body).await?.project;
    let new = NewProject {
        name: fields.name,
        domain: optional_id(fields.domain_id.as_deref())?
            .unwrap_or_else(|| call.principal.user_domain.id.clone()),
        description: fields.description.unwrap_or_default(),
        enabled: fields.enabled.unwrap_or(true),
    };
    let project = state.identity.create_project(&administrator, new).await?;
    let document = keystone::project(&project, &state.base_url(&headers));
    Ok((StatusCode::CREATED, Json(document)).into_response())
}

/// A project.
#[utoipa::path(get, path = "/identity/v3/projects/{project_id}", tag = "Identity", operation_id = "showProject",
    security(("token" = []), ("signature" = [])),
    params(("project_id" = String, Path)), responses((status = 200, description = "The project"), Refusals))]
pub(super) async fn show_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(project): Path<String>,
) -> Reply {
    let project = id::<ProjectId>(&project)?;
    let project = state
        .identity
        .visible_project(&call.principal, &project)
        .await?;
    Ok(Json(keystone::project(&project, &state.base_url(&headers))).into_response())
}

/// Enables or disables a project.
#[utoipa::path(patch, path = "/identity/v3/projects/{project_id}", tag = "Identity", operation_id = "updateProject",
    security(("token" = []), ("signature" = [])),
    params(("project_id" = String, Path)), responses((status = 200, description = "The project"), Refusals))]
pub(super) async fn update_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    headers: HeaderMap,
    Path(project): Path<String>,
    body: Body,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let project = id::<ProjectId>(&project)?;
    let enabled = json::<ChangedProjectBody>(body).await?.project.enabled;
    state
        .identity
        .set_project_enabled(&administrator, &project, enabled)
        .await?;
    let project = state
        .identity
        .visible_project(&call.principal, &project)
        .await?;
    Ok(Json(keystone::project(&project, &state.base_url(&headers))).into_response())
}

/// Removes a project.
#[utoipa::path(delete, path = "/identity/v3/projects/{project_id}", tag = "Identity", operation_id = "deleteProject",
    security(("token" = []), ("signature" = [])),
    params(("project_id" = String, Path)), responses((status = 204, description = "Removed"), Refusals))]
pub(super) async fn delete_project(
    State(state): State<IdentityState>,
    Caller(call): Caller,
    Path(project): Path<String>,
) -> Reply {
    let administrator = state.identity.administrator(&call)?;
    let project = id::<ProjectId>(&project)?;
    state
        .identity
        .delete_project(&administrator, &project)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
