//! Images' records.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use calotype_core::access::Action;
use calotype_core::app::Service;
use calotype_core::image::Image;
use calotype_core::{Error, ErrorKind};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use super::patch_body;
use super::path::ImagePath;
use super::{attributes, bodies};
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::{IdempotencyKey, keeping, once};
use crate::image_document::ImageDocument;
use crate::json_patch::Form;
use crate::state::ApiState;

/// Makes an image's record, to be given its bytes afterwards.
#[utoipa::path(
    post,
    path = "/v2/images",
    operation_id = "createImage",
    tag = "Images",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content_type = "application/json", description = "The image's attributes; unknown ones are kept as strings."),
    responses(
        (status = 201, description = "The image, queued; `Location` names it."),
        (status = 400, description = "The body or an attribute is malformed."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "An attribute that the caller may not set."),
        (status = 409, description = "The id is or was in use, or the idempotency key came with another body."),
        (status = 413, description = "The body is too large, or a quota is reached."),
        (status = 415, description = "The body is not application/json."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: IdempotencyKey,
    request: Request,
) -> Reply {
    let base_url = state.base_url(request.headers());
    // Before a kept answer is given again: a role that was taken away since permits nothing any more.
    state.service.admit(&call, Action::ImagesCreate)?;
    let (body, bytes) = bodies::json(&state, request).await?;
    let order = attributes::new_image(&body)?;
    let slot = key.slot(&call, &bytes);
    let service = &state.service;
    once(service, slot.as_ref(), async {
        let location = |image: &Image| format!("{base_url}/v2/images/{}", image.id);
        let keep = keeping(slot.as_ref(), |slot, image: &Image| {
            let (text, location) = (document_text(service, image), location(image));
            slot.answer(service, StatusCode::CREATED, text, Some(location))
        });
        let image = service.create_image(&call, &order, keep.as_deref()).await?;
        let location = HeaderValue::from_str(&location(&image)).map_err(Error::internal)?;
        let mut response = document(service, &image);
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert(header::LOCATION, location);
        Ok(response)
    })
    .await
}

/// Shows an image's record.
#[utoipa::path(
    get,
    path = "/v2/images/{image_id}",
    operation_id = "showImage",
    tag = "Images",
    params(("image_id" = String, Path, description = "The image's id.")),
    responses(
        (status = 200, description = "The image."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not read images."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
) -> Reply {
    let image = state.service.show_image(&call, id).await?;
    shown(&state.service, &image).await
}

/// Changes an image's record, wholly or not at all.
#[utoipa::path(
    patch,
    path = "/v2/images/{image_id}",
    operation_id = "updateImage",
    tag = "Images",
    params(("image_id" = String, Path, description = "The image's id.")),
    request_body(content_type = "application/openstack-images-v2.1-json-patch", description = "A list of operations: add, replace, remove."),
    responses(
        (status = 200, description = "The image as it now is."),
        (status = 400, description = "The patch or an attribute is malformed."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or an attribute that the caller may not set."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 409, description = "An attribute to replace or remove is not there, or others kept changing the image."),
        (status = 413, description = "The body is too large, or a limit is reached."),
        (status = 415, description = "The body is no patch; `Accept-Patch` lists the forms."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn update(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
    request: Request,
) -> Reply {
    let Some(form) = Form::of(&bodies::media_type(request.headers())) else {
        return Ok(no_patch());
    };
    let bytes = bodies::whole(&state, request.into_body()).await?;
    let changes = patch_body::changes(form, &bodies::parse(&bytes)?)?;
    let image = state.service.update_image(&call, id, &changes).await?;
    // The change is made: that nobody says now where the bytes are takes nothing from that.
    let shown = shown(&state.service, &image).await;
    Ok(shown.unwrap_or_else(|_| document(&state.service, &image)))
}

/// Deletes an image. Its id is never used again.
#[utoipa::path(
    delete,
    path = "/v2/images/{image_id}",
    operation_id = "deleteImage",
    tag = "Images",
    params(("image_id" = String, Path, description = "The image's id.")),
    request_body(content_type = "application/json", description = "What OTC's clients send, `{\"delete_backup\": true}`: there are no backups, and whatever it is means nothing."),
    responses(
        (status = 204, description = "The image is gone."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or a protected one."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 409, description = "A job is making the image."),
        (status = 413, description = "The body is too large."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn delete(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
    request: Request,
) -> Reply {
    // OTC's clients send `{"delete_backup": ...}`; there are no backups, so whatever it says is done.
    bodies::whole(&state, request.into_body()).await?;
    state.service.delete_image(&call, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The image with the store of its bytes.
async fn shown(service: &Service, image: &Image) -> Reply {
    let stores = service.stores_of(std::iter::once(image)).await?;
    let document = ImageDocument::new(image, service.settings()).in_stores(&stores);
    Ok(Json(document).into_response())
}

fn document(service: &Service, image: &Image) -> Response {
    Json(ImageDocument::new(image, service.settings())).into_response()
}

fn document_text(service: &Service, image: &Image) -> String {
    json!(ImageDocument::new(image, service.settings())).to_string()
}

fn no_patch() -> Response {
    let message = format!(
        "Image PATCH expects Content-Type one of: {}",
        patch_body::MEDIA_TYPES
    );
    let failure = Failure::from(Error::new(ErrorKind::UnsupportedMediaType, message));
    let mut response = failure.into_response();
    response.headers_mut().insert(
        HeaderName::from_static("accept-patch"),
        HeaderValue::from_static(patch_body::MEDIA_TYPES),
    );
    response
}
