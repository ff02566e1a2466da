//! What the project may have and has, as Glance tells it.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// Shows the quota of the caller's project. No limit is -1; sizes are in MiB, rounded up.
#[utoipa::path(
    get,
    path = "/v2/info/usage",
    operation_id = "showUsage",
    tag = "Quotas",
    responses(
        (status = 200, description = "The images' size in all and their number, each with its limit."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not see quotas, or has no project."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn show(State(state): State<ApiState>, Caller(call): Caller) -> Reply {
    let quota = state.service.own_quota(&call).await?;
    let taken = quota.charged().bytes() + quota.project.usage.reserved.bytes();
    // A limit is rounded down: who stays below what is shown is not refused.
    let size = entry(
        quota.bytes.most.map(|most| most >> 20),
        taken.div_ceil(1 << 20),
    );
    let count = entry(quota.images.most, quota.project.usage.images);
    let usage = json!({ "image_size_total": size, "image_count_total": count });
    Ok(Json(json!({ "usage": usage })).into_response())
}

fn entry(most: Option<u64>, usage: u64) -> Value {
    let limit = most.map_or(json!(-1), Value::from);
    json!({ "limit": limit, "usage": usage })
}
