//! `GET /v1/cloudimages/quota`: what the project may have and has (spec 6.3).

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse as _;
use calotype_core::app::Quota;
use calotype_core::ports::SharedBlobs;
use calotype_core::size::ByteSize;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::errors::Reply;
use crate::state::ApiState;

/// The largest number that the clients' types hold. What is larger, or no limit at all, is shown as it.
const LARGEST: u64 = i32::MAX as u64;

/// Shows the quota of the caller's project.
#[utoipa::path(
    get,
    path = "/v1/cloudimages/quota",
    operation_id = "showImageQuota",
    tag = "Quotas",
    responses(
        (status = 200, description = "Images, images that are shared, members of an image; in `calotype`, bytes."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not see quotas, or has no project (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn show_image_quota(State(state): State<ApiState>, Caller(call): Caller) -> Reply {
    let quota = state.service.own_quota(&call).await?;
    Ok(Json(document(&quota)).into_response())
}

fn document(quota: &Quota) -> Value {
    let project = &quota.project;
    let resource = |kind: &str, used: u64, most: Option<u64>| {
        json!({
            "type": kind,
            "used": used.min(LARGEST),
            "quota": most.unwrap_or(LARGEST).min(LARGEST),
            "min": 0,
            "max": LARGEST,
        })
    };
    let images = quota.images.most;
    json!({
        "quotas": { "resources": [
            resource("image", project.usage.images, images),
            // There is no limit but that of the images.
            resource("image_shared", project.shared_images, images),
            resource("image_member", project.most_members, quota.members.most),
        ] },
        "calotype": { "bytes": bytes_of(quota) },
    })
}

/// What the project may have and has of bytes. No limit is null.
pub(crate) fn bytes_of(quota: &Quota) -> Value {
    let usage = &quota.project.usage;
    json!({
        "used": quota.charged(),
        "reserved": usage.reserved,
        "quota": quota.bytes.most.map(ByteSize::new),
        "shared_bytes_count": match quota.shared_blobs {
            SharedBlobs::Once => "once",
            SharedBlobs::Each => "each",
        },
    })
}
