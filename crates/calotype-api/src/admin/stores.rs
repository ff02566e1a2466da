//! What is in each store, and moves between them.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use calotype_core::access::Action;
use calotype_core::id::{BlobId, ImageId, JobId};
use calotype_core::ports::{BlobRecord, BlobState};
use calotype_core::{Error, Result};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bad;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::ims::accepted::JobAccepted;
use crate::json_body::{json_object, optional_text, read_body};
use crate::state::ApiState;

/// The body of a request to move bytes, for the API's description.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct MoveTo {
    /// The store that they are to be in.
    pub store: String,
}

/// Moves an image's bytes to another store, in the background. Other images that share them come with it; who reads them meanwhile
/// notices nothing.
#[utoipa::path(
    post,
    path = "/admin/v1/images/{image_id}/move",
    operation_id = "moveImage",
    tag = "Administration",
    params(("image_id" = String, Path, description = "The image's id.")),
    request_body(content = MoveTo, content_type = "application/json"),
    responses(
        (status = 202, description = "The job's id.", body = JobAccepted),
        (status = 400, description = "There is no such store (IMG.0001)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 404, description = "There is no such image (IMG.0027)."),
        (status = 409, description = "The image has no bytes yet, they are in the store already, or are being moved."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn move_image(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    state.service.admit(&call, Action::ServiceAdminister)?;
    let image: ImageId = id_of(path, "image")?;
    let store = store_of(&read_body(&state, body).await?)?;
    Ok(accepted(
        &state.service.move_bytes_of(&call, image, &store).await?,
    ))
}

/// Moves a blob to another store, in the background, whatever refers to it.
#[utoipa::path(
    post,
    path = "/admin/v1/blobs/{blob_id}/move",
    operation_id = "moveBlob",
    tag = "Administration",
    params(("blob_id" = String, Path, description = "The blob's id, as the list of a store's blobs has it.")),
    request_body(content = MoveTo, content_type = "application/json"),
    responses(
        (status = 202, description = "The job's id.", body = JobAccepted),
        (status = 400, description = "There is no such store (IMG.0001)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 404, description = "There is no such blob, or it is still being written."),
        (status = 409, description = "It is in the store already, or is being moved."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn move_blob(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    state.service.admit(&call, Action::ServiceAdminister)?;
    let blob: BlobId = id_of(path, "blob")?;
    let store = store_of(&read_body(&state, body).await?)?;
    Ok(accepted(
        &state.service.move_blob(&call, blob, &store).await?,
    ))
}

/// Lists the blobs of a store that images or jobs refer to, by their ids.
#[utoipa::path(
    get,
    path = "/admin/v1/stores/{store}/blobs",
    operation_id = "listBlobs",
    tag = "Administration",
    params(
        ("store" = String, Path, description = "The store's name."),
        ("limit" = Option<u32>, Query, description = "100 by default, 1 to 1000."),
        ("marker" = Option<String>, Query, description = "The last blob of the page before."),
    ),
    responses(
        (status = 200, description = "The blobs; `next_marker` where there may be more."),
        (status = 400, description = "A value that its parameter does not have."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 404, description = "There is no such store."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_blobs(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Reply {
    state.service.admit(&call, Action::ServiceAdminister)?;
    let Path(store) = path.map_err(|_| Error::not_found("There is no such store."))?;
    let params = super::params(query.as_deref())?;
    let after = super::parsed(&params, "marker")?;
    let limit = super::limit(&params)?;
    let blobs = state.service.blobs_in(&call, &store, after, limit).await?;
    let mut body = json!({ "blobs": blobs.iter().map(document).collect::<Vec<_>>() });
    if let (Some(last), true) = (blobs.last(), blobs.len() == limit as usize) {
        body["next_marker"] = last.id.to_string().into();
    }
    Ok(Json(body).into_response())
}

fn document(blob: &BlobRecord) -> Value {
    let facts = blob.facts.as_ref();
    json!({
        "id": blob.id.to_string(),
        "status": match blob.state {
            BlobState::Writing => "writing",
            BlobState::Stored => "stored",
            BlobState::Deleting => "deleting",
        },
        "size": facts.map(|facts| facts.size.bytes()),
        "stored_bytes": facts.map(|facts| facts.stored.bytes()),
        "images": blob.images,
        "damaged": blob.damaged,
    })
}

fn accepted(job: &JobId) -> Response {
    let body = json!({ "job_id": job.as_str() });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn id_of<T: std::str::FromStr>(path: Result<Path<String>, PathRejection>, what: &str) -> Result<T> {
    let id = path.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or_else(|| Error::not_found(format!("There is no such {what}.")))
}

fn store_of(body: &[u8]) -> Result<String> {
    let mut object = json_object(body)?;
    let store = optional_text(&mut object, "store")?;
    if let Some(name) = object.keys().next() {
        return Err(bad(format!("There is no field '{name}' here.")));
    }
    store.ok_or_else(|| bad("The field 'store' must name a store."))
}
