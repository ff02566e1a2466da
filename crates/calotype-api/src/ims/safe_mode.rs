//! Imports in safe mode, as Huawei's SDKs call them: `POST /v2.1/cloudimages/action`, `.../quickimport/action` and
//! `.../dataimages/action` (spec 3.8). They are those of the older paths, except that a caller who names a key must be
//! permitted to use keys by a role, whatever the key service would let the service itself do (decision D19).

use axum::body::Body;
use axum::extract::State;
use calotype_core::app::Strictness;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::import::{CreateImageRequest, ImportResponses, create};
use super::import_body::Form;
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::IdempotencyKey;
use crate::state::ApiState;

/// The operations of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(import_image_in_safe_mode))
        .routes(routes!(import_image_quickly_in_safe_mode))
        .routes(routes!(import_data_image_in_safe_mode))
}

/// Makes an image of an object in safe mode: as `importImage`, and for a key the caller's role must permit its use.
#[utoipa::path(
    post,
    path = "/v2.1/cloudimages/action",
    operation_id = "importImageInSafeMode",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_image_in_safe_mode(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Any, Strictness::Caller).await
}

/// Makes an image of a large object in safe mode: as `importImageQuickly`, and for a key the caller's role must permit its use.
#[utoipa::path(
    post,
    path = "/v2.1/cloudimages/quickimport/action",
    operation_id = "importImageQuicklyInSafeMode",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_image_quickly_in_safe_mode(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Quick, Strictness::Caller).await
}

/// Makes an image of a data disk in safe mode: as `importDataImage`, and for a key the caller's role must permit its use.
#[utoipa::path(
    post,
    path = "/v2.1/cloudimages/dataimages/action",
    operation_id = "importDataImageInSafeMode",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_data_image_in_safe_mode(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Data, Strictness::Caller).await
}
