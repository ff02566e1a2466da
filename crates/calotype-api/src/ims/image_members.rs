//! `GET /v1/{project_id}/cloudimages/{image_id}/members` and one of them: whom an image is shared with, as Huawei's SDKs ask
//! for it.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::codes::ImsCode;
use calotype_core::id::ProjectId;
use calotype_core::{Error, ErrorKind, Result};
use serde_json::json;

use super::path::{check_project, image_id};
use crate::admin::{limit, params, parsed};
use crate::caller::Caller;
use crate::errors::Reply;
use crate::image_v2::member_document;
use crate::state::ApiState;

type Variables = Result<Path<HashMap<String, String>>, PathRejection>;

/// Lists the projects that an image is shared with: all of them for its owner, itself alone for a member.
#[utoipa::path(
    get,
    path = "/v1/{project_id}/cloudimages/{image_id}/members",
    operation_id = "listCloudImageMembers",
    tag = "Image members",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image's id."),
        ("limit" = Option<u32>, Query, description = "100 by default, 1 to 1000."),
        ("marker" = Option<String>, Query, description = "The last project of the page before."),
    ),
    responses(
        (status = 200, description = "The members, by project; `page_info.next_marker` where there may be more."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not share images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_image_members(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Variables,
    RawQuery(query): RawQuery,
) -> Reply {
    state.service.admit(&call, Action::ImagesShare)?;
    let named = Named::of(path);
    check_project(&state, &call, &named.project)?;
    let id = image_id(&named.image)?;
    let params = params(query.as_deref())?;
    let after: Option<ProjectId> = parsed(&params, "marker")?;
    let limit = limit(&params)? as usize;
    let members = match state.service.members(&call, id).await {
        // Its owner asks whom an image is shared with that is not: with nobody.
        Err(error) if error.kind() == ErrorKind::Forbidden && error.code().is_none() => Vec::new(),
        members => members?,
    };
    let members = members.iter();
    let page: Vec<_> = members
        .filter(|member| after.as_ref().is_none_or(|after| member.project > *after))
        .take(limit)
        .collect();
    let documents: Vec<_> = page.iter().map(|member| member_document(member)).collect();
    let mut info = json!({ "current_count": page.len() });
    if let (Some(last), true) = (page.last(), page.len() == limit) {
        info["next_marker"] = last.project.as_str().into();
    }
    let body = json!({ "members": documents, "schema": "/v2/schemas/members", "page_info": info });
    Ok(Json(body).into_response())
}

/// Shows a project that an image is shared with, and its answer.
#[utoipa::path(
    get,
    path = "/v1/{project_id}/cloudimages/{image_id}/members/{member_id}",
    operation_id = "showCloudImageMember",
    tag = "Image members",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image's id."),
        ("member_id" = String, Path, description = "The member's project."),
    ),
    responses(
        (status = 200, description = "The member."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not share images (IMG.0026)."),
        (status = 404, description = "There is no such image (IMG.0027) or member (IMG.0121) for the caller."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_image_member(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Variables,
) -> Reply {
    state.service.admit(&call, Action::ImagesShare)?;
    let named = Named::of(path);
    check_project(&state, &call, &named.project)?;
    let id = image_id(&named.image)?;
    let member = named.member.parse();
    let member: ProjectId = member.map_err(|_| Error::ims(ImsCode::IMG_0067))?;
    let member = state.service.member(&call, id, &member).await?;
    Ok(Json(member_document(&member)).into_response())
}

/// What a path names. What is no text names nothing.
#[derive(Default)]
struct Named {
    project: String,
    image: String,
    member: String,
}

impl Named {
    fn of(path: Variables) -> Self {
        let Ok(Path(mut variables)) = path else {
            return Self::default();
        };
        let mut take = |name: &str| variables.remove(name).unwrap_or_default();
        Self {
            project: take("project_id"),
            image: take("image_id"),
            member: take("member_id"),
        }
    }
}
