//! An image's tags, one at a time.

use axum::extract::State;
use axum::response::IntoResponse as _;
use http::StatusCode;

use super::path::TagPath;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// Gives an image a tag.
#[utoipa::path(
    put,
    path = "/v2/images/{image_id}/tags/{tag}",
    operation_id = "addImageTag",
    tag = "Image tags",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("tag" = String, Path, description = "The tag: 1 to 255 characters."),
    ),
    responses(
        (status = 204, description = "The image has the tag."),
        (status = 400, description = "The tag is too long."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 413, description = "The image has as many tags as it may have."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn add(
    State(state): State<ApiState>,
    Caller(call): Caller,
    TagPath(id, tag): TagPath,
) -> Reply {
    state.service.add_tag(&call, id, &tag).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes a tag from an image.
#[utoipa::path(
    delete,
    path = "/v2/images/{image_id}/tags/{tag}",
    operation_id = "deleteImageTag",
    tag = "Image tags",
    params(
        ("image_id" = String, Path, description = "The image's id."),
        ("tag" = String, Path, description = "The tag."),
    ),
    responses(
        (status = 204, description = "The image does not have the tag any more."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image."),
        (status = 404, description = "There is no such image that the caller may see, or it has no such tag."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Caller(call): Caller,
    TagPath(id, tag): TagPath,
) -> Reply {
    state.service.remove_tag(&call, id, &tag).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
