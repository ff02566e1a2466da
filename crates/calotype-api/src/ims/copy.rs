//! `POST /v1/cloudimages/{image_id}/copy`: replicates an image within the region (spec 3), and its stricter sister under
//! `/v2.1` (decision D19).
//!
//! The checks come in the order of spec 3.3: the credential and the permission before anything of the body is read,
//! the body before the path's id, the id before the name. A refusal changes nothing. The answer is sent after the
//! one transaction that wrote job, replica and (with an `Idempotency-Key`) the answer itself: a crash leaves all or
//! nothing of it.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use calotype_core::app::{EncryptionMode, ReplicaOrder, Strictness};
use calotype_core::codes::ImsCode;
use calotype_core::name::{Description, ImageName};
use calotype_core::{Error, Result};
use serde::Deserialize;

use super::accepted::{JobAccepted, accepted_text, kept};
use super::import_body::store;
use super::path;
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::{IdempotencyKey, json_answer, once};
use crate::json_body::{json_object, optional_text, read_body};
use crate::state::ApiState;

/// The body of a replication's request, for the API's description. Unknown fields are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CopyImageRequest {
    /// The replica's name: 1 to 128 of letters, digits, `-`, `.`, `_` and inner spaces.
    pub name: String,
    /// The replica's description: at most 1024 characters. It is not inherited.
    pub description: Option<String>,
    /// The customer's master key to seal the replica under.
    pub cmk_id: Option<String>,
    /// The replica's enterprise project; absent, empty or `0`: the default one. It is not inherited.
    pub enterprise_project_id: Option<String>,
    /// An extension: `reseal` (the default), or `rewrap` where the operator allows it. A rewrapped replica shares its
    /// source's bytes: whoever has the source's key and its former wrap can still open them. The answer says so.
    pub encryption_mode: Option<String>,
    /// An extension: the store for a replica under another key, of those that `/v2/info/stores` lists. One that shares its source's
    /// bytes is where these are.
    pub store: Option<String>,
}

/// What rewrapping does not give.
const REWRAP_WARNING: &str = "The replica shares its source's bytes and data key, which was wrapped again: whoever may use \
     the source's key and has its former wrap can still open them. Replicate without encryption_mode rewrap to seal the \
     bytes under a key of their own.";

/// Replicates an image within the region.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/{image_id}/copy",
    operation_id = "copyImageInRegion",
    tag = "Replication",
    params(
        ("image_id" = String, Path, description = "The image to replicate: a UUID."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = CopyImageRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The replication was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not replicate (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 500, description = "A fault of the service (IMG.0061)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn copy_image(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    copy(state, caller, key, path, body, Strictness::KeyService).await
}

/// Replicates an image within the region in safe mode: as `copyImageInRegion`, and the caller's role must permit the
/// actions on keys too.
#[utoipa::path(
    post,
    path = "/v2.1/cloudimages/{image_id}/copy",
    operation_id = "copyImageInRegionInSafeMode",
    tag = "Replication",
    params(
        ("image_id" = String, Path, description = "The image to replicate: a UUID."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = CopyImageRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The replication was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not replicate (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 500, description = "A fault of the service (IMG.0061)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn copy_image_in_safe_mode(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    copy(state, caller, key, path, body, Strictness::Caller).await
}

async fn copy(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
    strictness: Strictness,
) -> Reply {
    let service = &state.service;
    service.authorize_replication(&call)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let order = parse_order(path, &body, strictness)?;
        let rewraps = order.mode == EncryptionMode::Rewrap;
        let warning = rewraps.then_some(REWRAP_WARNING);
        let keep = kept(service, slot.as_ref(), warning);
        let job = service.replicate(&call, &order, keep.as_deref()).await?;
        Ok(json_answer(accepted_text(&job, warning)))
    })
    .await
}

/// Steps 2 to 5 of spec 3.3.
fn parse_order(
    path: Result<Path<String>, PathRejection>,
    body: &[u8],
    strictness: Strictness,
) -> Result<ReplicaOrder> {
    let mut body = json_object(body)?;
    let name = optional_text(&mut body, "name")?;
    let description = optional_text(&mut body, "description")?;
    let cmk_id = optional_text(&mut body, "cmk_id")?;
    let enterprise_project = optional_text(&mut body, "enterprise_project_id")?;
    let mode = match optional_text(&mut body, "encryption_mode")?.as_deref() {
        None | Some("") => EncryptionMode::Reseal,
        Some(mode) => mode.parse().map_err(|_| {
            Error::invalid("encryption_mode is reseal or rewrap.").with_code(ImsCode::IMG_0001)
        })?,
    };
    let store = store(&mut body)?;
    Ok(ReplicaOrder {
        source: path::image(path)?,
        name: ImageName::parse(&name.unwrap_or_default())?,
        description: Description::parse(&description.unwrap_or_default())?,
        cmk_id,
        enterprise_project,
        mode,
        store,
        strictness,
    })
}
