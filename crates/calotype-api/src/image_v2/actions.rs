//! Withholding an image's bytes, and giving them back.

use axum::extract::State;
use axum::response::IntoResponse as _;
use http::StatusCode;

use super::path::ImagePath;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// Withholds an active image's bytes from all but administrators.
#[utoipa::path(
    post,
    path = "/v2/images/{image_id}/actions/deactivate",
    operation_id = "deactivateImage",
    tag = "Image actions",
    params(("image_id" = String, Path, description = "The image's id.")),
    responses(
        (status = 204, description = "The image is deactivated."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or one without bytes."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn deactivate(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
) -> Reply {
    state.service.deactivate_image(&call, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Gives out a deactivated image's bytes again.
#[utoipa::path(
    post,
    path = "/v2/images/{image_id}/actions/reactivate",
    operation_id = "reactivateImage",
    tag = "Image actions",
    params(("image_id" = String, Path, description = "The image's id.")),
    responses(
        (status = 204, description = "The image is active."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or one without bytes."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn reactivate(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
) -> Reply {
    state.service.reactivate_image(&call, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
