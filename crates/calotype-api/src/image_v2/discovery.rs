//! What clients ask before they import images or choose stores: there is no import, and mostly one store.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse as _;
use calotype_core::app::{StoreEntry, StoreList};
use calotype_core::size::ByteSize;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

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

/// Lists the stores that a client can choose from.
#[utoipa::path(
    get,
    path = "/v2/info/stores",
    operation_id = "listStores",
    tag = "Versions",
    responses(
        (status = 200, description = "The stores. New images go to the default one."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn stores(State(state): State<ApiState>, Caller(_): Caller) -> Reply {
    let list = &state.service.settings().stores;
    let stores = list.stores.iter().map(|store| document(list, store));
    Ok(Json(json!({ "stores": stores.collect::<Vec<_>>() })).into_response())
}

/// Lists the stores for who runs the service: of what kind each is, and what it holds. `bytes` are those of the blobs that images or
/// jobs refer to; `leaving` counts what waits for its deletion.
#[utoipa::path(
    get,
    path = "/v2/info/stores/detail",
    operation_id = "listStoresInDetail",
    tag = "Administration",
    responses(
        (status = 200, description = "The stores."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller does not run the service."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn stores_in_detail(State(state): State<ApiState>, Caller(call): Caller) -> Reply {
    let list = &state.service.settings().stores;
    let details = state.service.store_details(&call).await?;
    let stores = details.iter().map(|detail| {
        let mut store = document(list, &detail.store);
        let content = detail.content;
        store["type"] = detail.store.kind.into();
        store["properties"] = json!({
            "blobs": content.blobs,
            "bytes": content.bytes.bytes(),
            "writing": content.writing,
            "arriving": content.arriving,
            "leaving": content.leaving,
            "free_bytes": detail.free.map(ByteSize::bytes),
        });
        store
    });
    Ok(Json(json!({ "stores": stores.collect::<Vec<_>>() })).into_response())
}

fn document(list: &StoreList, store: &StoreEntry) -> Value {
    let mut document = json!({ "id": store.name.as_str() });
    if let Some(description) = &store.description {
        document["description"] = description.as_str().into();
    }
    if store.name == list.default {
        // Glance writes the boolean as a string, and its clients compare it as one.
        document["default"] = "true".into();
    }
    document
}
