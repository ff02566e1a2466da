//! What clients ask before they import images or choose stores: there is no import, and one store.

use axum::Json;
use axum::response::IntoResponse as _;
use serde_json::json;

use crate::caller::Caller;
use crate::errors::Reply;

/// Lists the ways to import an image: none yet.
#[utoipa::path(
    get,
    path = "/v2/info/import",
    operation_id = "listImportMethods",
    tag = "Versions",
    responses(
        (status = 200, description = "The methods."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn import_methods(Caller(_): Caller) -> Reply {
    let methods = json!({
        "description": "The ways to import an image.",
        "type": "array",
        "value": [],
    });
    Ok(Json(json!({ "import-methods": methods })).into_response())
}

/// Lists the stores that a client can choose from: the one there is.
#[utoipa::path(
    get,
    path = "/v2/info/stores",
    operation_id = "listStores",
    tag = "Versions",
    responses(
        (status = 200, description = "The stores."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn stores(Caller(_): Caller) -> Reply {
    // Glance writes the boolean as a string, and its clients compare it as one.
    let store = json!({ "id": "calotype", "default": "true" });
    Ok(Json(json!({ "stores": [store] })).into_response())
}
