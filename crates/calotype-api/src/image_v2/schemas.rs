//! The JSON schemas of the documents that this API gives out. glanceclient asks for them before most of its calls.

use axum::Json;
use axum::response::IntoResponse as _;
use calotype_core::image::MemberStatus;
use serde_json::{Value, json};

use super::image_schema::{UUID_PATTERN, image_schema};
use crate::caller::Caller;
use crate::errors::Reply;

/// The schema of an image.
#[utoipa::path(
    get,
    path = "/v2/schemas/image",
    operation_id = "showImageSchema",
    tag = "Schemas",
    responses(
        (status = 200, description = "The schema."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn image(Caller(_): Caller) -> Reply {
    Ok(Json(image_schema()).into_response())
}

/// The schema of a list of images.
#[utoipa::path(
    get,
    path = "/v2/schemas/images",
    operation_id = "showImagesSchema",
    tag = "Schemas",
    responses(
        (status = 200, description = "The schema."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn images(Caller(_): Caller) -> Reply {
    let schema = json!({
        "name": "images",
        "properties": {
            "images": { "type": "array", "items": image_schema() },
            "schema": { "type": "string" },
            "next": { "type": "string" },
            "first": { "type": "string" },
        },
        "links": [
            { "rel": "first", "href": "{first}" },
            { "rel": "next", "href": "{next}" },
            { "rel": "describedby", "href": "{schema}" },
        ],
    });
    Ok(Json(schema).into_response())
}

/// The schema of a member of an image.
#[utoipa::path(
    get,
    path = "/v2/schemas/member",
    operation_id = "showMemberSchema",
    tag = "Schemas",
    responses(
        (status = 200, description = "The schema."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn member(Caller(_): Caller) -> Reply {
    Ok(Json(member_schema()).into_response())
}

/// The schema of a list of members.
#[utoipa::path(
    get,
    path = "/v2/schemas/members",
    operation_id = "showMembersSchema",
    tag = "Schemas",
    responses(
        (status = 200, description = "The schema."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn members(Caller(_): Caller) -> Reply {
    let schema = json!({
        "name": "members",
        "properties": {
            "members": { "type": "array", "items": member_schema() },
            "schema": { "type": "string" },
        },
        "links": [{ "rel": "describedby", "href": "{schema}" }],
    });
    Ok(Json(schema).into_response())
}

fn member_schema() -> Value {
    let statuses: Vec<_> = MemberStatus::ALL.iter().map(|word| word.as_str()).collect();
    json!({
        "name": "member",
        "properties": {
            "member_id": {
                "type": "string",
                "description": "The project that the image is shared with.",
            },
            "image_id": {
                "type": "string", "pattern": UUID_PATTERN,
                "description": "The image.",
            },
            "status": {
                "type": "string", "enum": statuses,
                "description": "What the project answered.",
            },
            "created_at": {
                "type": "string",
                "description": "When the project became a member.",
            },
            "updated_at": {
                "type": "string",
                "description": "When the project last answered.",
            },
            "schema": {
                "type": "string", "readOnly": true,
                "description": "Where this schema is.",
            },
        },
    })
}
