//! The root keys: which there are, and what is wrapped under each. None of their bits is ever shown.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use calotype_keys::{EmbeddedKeys, RootStatus};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::caller::Caller;
use crate::errors::Reply;

/// The operations of this module.
pub fn router() -> OpenApiRouter<Arc<EmbeddedKeys>> {
    OpenApiRouter::default()
        .routes(routes!(show_root_keys))
        .routes(routes!(rotate_root_key))
        .routes(routes!(retire_root_keys))
}

/// Shows the root keys by their names, and how many versions of master keys are wrapped under each.
#[utoipa::path(
    get,
    path = "/admin/v1/root-key",
    operation_id = "showRootKeys",
    tag = "Administration",
    responses(
        (status = 200, description = "The root keys, the current one first."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_root_keys(State(keys): State<Arc<EmbeddedKeys>>, Caller(call): Caller) -> Reply {
    Ok(document(&keys.root_status(&call).await?))
}

/// Makes a fresh root key the current one. What the others wrap is rewrapped in the background.
#[utoipa::path(
    post,
    path = "/admin/v1/root-key/rotate",
    operation_id = "rotateRootKey",
    tag = "Administration",
    responses(
        (status = 200, description = "The root keys, the current one first."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 409, description = "The root keys are not in a file of the service's own, or there are too many."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn rotate_root_key(State(keys): State<Arc<EmbeddedKeys>>, Caller(call): Caller) -> Reply {
    Ok(document(&keys.rotate_root(&call).await?))
}

/// Retires the root keys that are not the current one: they leave the service's own file.
#[utoipa::path(
    post,
    path = "/admin/v1/root-key/retire",
    operation_id = "retireRootKeys",
    tag = "Administration",
    responses(
        (status = 200, description = "The root keys, the current one first."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller does not run the service (IMG.0026)."),
        (status = 409, description = "Something is still wrapped under one of them."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn retire_root_keys(
    State(keys): State<Arc<EmbeddedKeys>>,
    Caller(call): Caller,
) -> Reply {
    Ok(document(&keys.retire_roots(&call).await?))
}

fn document(status: &RootStatus) -> Response {
    let roots: Vec<_> = status
        .roots
        .iter()
        .map(|root| {
            json!({
                "name": root.record.name,
                "current": root.record.current,
                "at_hand": root.at_hand,
                "versions": root.record.versions,
                "since": root.record.since.to_seconds(),
                "retired_at": root.record.retired_at.map(calotype_core::time::Timestamp::to_seconds),
            })
        })
        .collect();
    Json(json!({ "source": status.source, "root_keys": roots })).into_response()
}
