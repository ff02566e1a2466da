//! Version discovery, without a credential.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use calotype_identity::keystone;
use http::{HeaderMap, StatusCode};

use super::IdentityState;

/// The versions of the identity API.
#[utoipa::path(get, path = "/identity/", tag = "Identity", operation_id = "listIdentityVersions", responses((status = 300, description = "The versions")))]
pub(super) async fn versions(State(state): State<IdentityState>, headers: HeaderMap) -> Response {
    let document = keystone::versions(&state.base_url(&headers));
    (StatusCode::MULTIPLE_CHOICES, Json(document)).into_response()
}

/// The versions of the identity API.
#[utoipa::path(get, path = "/identity", tag = "Identity", operation_id = "listIdentityVersionsWithoutSlash", responses((status = 300, description = "The versions")))]
pub(super) async fn versions_without_slash(
    state: State<IdentityState>,
    headers: HeaderMap,
) -> Response {
    versions(state, headers).await
}

/// The version of the identity API.
#[utoipa::path(get, path = "/identity/v3/", tag = "Identity", operation_id = "showIdentityVersion", responses((status = 200, description = "The version")))]
pub(super) async fn version(State(state): State<IdentityState>, headers: HeaderMap) -> Response {
    Json(keystone::version(&state.base_url(&headers))).into_response()
}

/// The version of the identity API.
#[utoipa::path(get, path = "/identity/v3", tag = "Identity", operation_id = "showIdentityVersionWithoutSlash", responses((status = 200, description = "The version")))]
pub(super) async fn version_without_slash(
    state: State<IdentityState>,
    headers: HeaderMap,
) -> Response {
    version(state, headers).await
}
