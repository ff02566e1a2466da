//! The projects that an image is shared with.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::id::ProjectId;
use calotype_core::image::{Member, MemberStatus};
use calotype_core::{Error, Result};
use http::StatusCode;
use serde_json::{Value, json};

use super::bodies;
use super::path::{ImagePath, MemberPath};
use crate::caller::Caller;
use crate::errors::Reply;
use crate::idempotency::{IdempotencyKey, keeping, once};
use crate::state::ApiState;

/// Lists an image's members: all of them for its owner, itself alone for a member.
#[utoipa::path(
    get,
    path = "/v2/images/{image_id}/members",
    operation_id = "listImageMembers",
    tag = "Image members",
    params(("image_id" = String, Path, description = "The image's id.")),
    responses(
        (status = 200, description = "The members."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The image's visibility is not `shared`."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
) -> Reply {
    let members = state.service.members(&call, id).await?;
    let members: Vec<_> = members.iter().map(document).collect();
    Ok(Json(json!({ "members": members, "schema": "/v2/schemas/members" })).into_response())
}

/// Shares an image with a project.
#[utoipa::path(
    post,
    path = "/v2/images/{image_id}/members",
    operation_id = "addImageMember",
    tag = "Image members",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content_type = "application/json", description = "`{\"member\": project}`"),
    responses(
        (status = 200, description = "The member, pending."),
        (status = 400, description = "The body names no project, or the owner."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or one whose visibility is not `shared`."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 409, description = "The project is a member, or the idempotency key came with another body."),
        (status = 413, description = "The image has as many members as it may have."),
        (status = 415, description = "The body is not application/json."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn add(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
    key: IdempotencyKey,
    request: Request,
) -> Reply {
    let service = &state.service;
    service.admit(&call, Action::ImagesShare)?;
    let (body, bytes) = bodies::json(&state, request).await?;
    let project: ProjectId = word(&body, "member")?
        .parse()
        .map_err(|_| Error::invalid("Member is not a project's id."))?;
    let slot = key.slot(&call, &bytes);
    once(service, slot.as_ref(), async {
        let keep = keeping(slot.as_ref(), |slot, member: &Member| {
            slot.answer(service, StatusCode::OK, document(member).to_string(), None)
        });
        let member = service
            .add_member(&call, id, &project, keep.as_deref())
            .await?;
        Ok(Json(document(&member)).into_response())
    })
    .await
}

/// Shows a member of an image.
#[utoipa::path(
    get,
    path = "/v2/images/{image_id}/members/{member_id}",
    operation_id = "showImageMember",
    tag = "Image members",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("member_id" = String, Path, description = "The member's project."),
    ),
    responses(
        (status = 200, description = "The member."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not read images."),
        (status = 404, description = "There is no such image or member that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    Caller(call): Caller,
    MemberPath(id, project): MemberPath,
) -> Reply {
    let member = state.service.member(&call, id, &project).await?;
    Ok(Json(document(&member)).into_response())
}

/// Accepts or rejects an image that is shared with the caller's project.
#[utoipa::path(
    put,
    path = "/v2/images/{image_id}/members/{member_id}",
    operation_id = "updateImageMember",
    tag = "Image members",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("member_id" = String, Path, description = "The caller's project."),
    ),
    request_body(content_type = "application/json", description = "`{\"status\": \"accepted\"}`, `rejected` or `pending`."),
    responses(
        (status = 200, description = "The member."),
        (status = 400, description = "The body names no status."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The owner can't answer for its members."),
        (status = 404, description = "There is no such image or member that the caller may see."),
        (status = 415, description = "The body is not application/json."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn answer(
    State(state): State<ApiState>,
    Caller(call): Caller,
    MemberPath(id, project): MemberPath,
    request: Request,
) -> Reply {
    let (body, _) = bodies::json(&state, request).await?;
    let status: MemberStatus = word(&body, "status")?
        .parse()
        .map_err(|_| Error::invalid("Status is one of: pending, accepted, rejected."))?;
    let service = &state.service;
    let member = service
        .answer_membership(&call, id, &project, status)
        .await?;
    Ok(Json(document(&member)).into_response())
}

/// Ends the sharing of an image with a project.
#[utoipa::path(
    delete,
    path = "/v2/images/{image_id}/members/{member_id}",
    operation_id = "deleteImageMember",
    tag = "Image members",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("member_id" = String, Path, description = "The member's project."),
    ),
    responses(
        (status = 204, description = "The project is no member any more."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or one whose visibility is not `shared`."),
        (status = 404, description = "There is no such image or member that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Caller(call): Caller,
    MemberPath(id, project): MemberPath,
) -> Reply {
    state.service.remove_member(&call, id, &project).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A member, as both APIs show it (spec 6.2).
pub(crate) fn document(member: &Member) -> Value {
    json!({
        "member_id": member.project.as_str(),
        "image_id": member.image.to_string(),
        "status": member.status.as_str(),
        "created_at": member.created_at.to_seconds(),
        "updated_at": member.updated_at.to_seconds(),
        "schema": "/v2/schemas/member",
    })
}

fn word<'a>(body: &'a Value, name: &str) -> Result<&'a str> {
    let word = body.get(name).and_then(Value::as_str);
    word.filter(|word| !word.is_empty()).ok_or_else(|| {
        Error::invalid(format!(
            "The body is a JSON object with the member \"{name}\"."
        ))
    })
}
