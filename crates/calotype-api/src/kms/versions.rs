//! Version discovery, without a credential.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::KmsState;

pub(super) fn router() -> OpenApiRouter<KmsState> {
    OpenApiRouter::default()
        .routes(routes!(versions))
        .routes(routes!(versions_without_slash))
        .routes(routes!(version))
        .routes(routes!(version_without_slash))
}

fn v1(state: &KmsState, headers: &HeaderMap) -> Value {
    let base = state.base_url(headers);
    json!({
        "id": "v1.0",
        "links": [{ "href": format!("{base}/kms/v1.0/"), "rel": "self" }],
        "min_version": "",
        "status": "CURRENT",
        "version": "",
        "updated": "2018-09-05T08:18:05Z",
    })
}

/// The versions of the KMS API.
#[utoipa::path(get, path = "/kms/", tag = "Keys", operation_id = "listKmsVersions", responses((status = 200, description = "The versions.")))]
pub(super) async fn versions(State(state): State<KmsState>, headers: HeaderMap) -> Response {
    Json(json!({ "versions": [v1(&state, &headers)] })).into_response()
}

/// The versions of the KMS API.
#[utoipa::path(get, path = "/kms", tag = "Keys", operation_id = "listKmsVersionsWithoutSlash", responses((status = 200, description = "The versions.")))]
pub(super) async fn versions_without_slash(state: State<KmsState>, headers: HeaderMap) -> Response {
    versions(state, headers).await
}

/// The version of the KMS API.
#[utoipa::path(get, path = "/kms/v1.0/", tag = "Keys", operation_id = "showKmsVersion", responses((status = 200, description = "The version.")))]
pub(super) async fn version(State(state): State<KmsState>, headers: HeaderMap) -> Response {
    Json(json!({ "version": v1(&state, &headers) })).into_response()
}

/// The version of the KMS API.
#[utoipa::path(get, path = "/kms/v1.0", tag = "Keys", operation_id = "showKmsVersionWithoutSlash", responses((status = 200, description = "The version.")))]
pub(super) async fn version_without_slash(state: State<KmsState>, headers: HeaderMap) -> Response {
    version(state, headers).await
}
