//! Replicating to another region: `POST /v1/cloudimages/{image_id}/cross_region_copy` (spec 3.8).
//!
//! There is one region. The request is checked as one that could be done, so that who moves to this service sees what else
//! is wrong with it, and is then told so.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use calotype_core::app::ElsewhereOrder;
use calotype_core::codes::ImsCode;
use calotype_core::name::{Description, ImageName};
use calotype_core::{Error, Result};
use serde::Deserialize;

use super::accepted::{JobAccepted, accepted_text};
use super::path;
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::{IdempotencyKey, json_answer, once};
use crate::json_body::{json_object, malformed, optional_text, read_body};
use crate::state::ApiState;

/// The body of a request to replicate to another region, for the API's description. Unknown fields are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CopyImageToRegionRequest {
    /// The replica's name: 1 to 128 of letters, digits, `-`, `.`, `_` and inner spaces.
    pub name: String,
    /// The replica's description: at most 1024 characters.
    pub description: Option<String>,
    /// The region that the replica is to be in.
    pub region: String,
    /// The name of the project there.
    pub project_name: String,
    /// The agency that lets the service act there.
    pub agency_name: String,
    /// The vault for the backup of a full-ECS image.
    pub vault_id: Option<String>,
}

/// Checks a replication to another region, and says that there is none.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/{image_id}/cross_region_copy",
    operation_id = "copyImageToRegion",
    tag = "Replication",
    params(
        ("image_id" = String, Path, description = "The image to replicate: a UUID."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = CopyImageToRegionRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The replication was accepted, which it never is here.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which. One that breaks none is IMG.0105."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not replicate (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 500, description = "A fault of the service (IMG.0061)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn copy_image_to_region(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.authorize_replication(&call)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let order = parse_order(path, &body)?;
        let job = service.replicate_elsewhere(&call, &order).await?;
        Ok(json_answer(accepted_text(&job, None)))
    })
    .await
}

fn parse_order(path: Result<Path<String>, PathRejection>, body: &[u8]) -> Result<ElsewhereOrder> {
    let mut body = json_object(body)?;
    let mut text = |name: &str| Ok::<_, Error>(optional_text(&mut body, name)?.unwrap_or_default());
    let (name, description) = (text("name")?, text("description")?);
    let (region, project, agency) = (text("region")?, text("project_name")?, text("agency_name")?);
    let vault = text("vault_id")?;
    let order = ElsewhereOrder {
        source: path::image(path)?,
        name: ImageName::parse(&name)?,
        description: Description::parse(&description)?,
    };
    if !is_word(&region) {
        return Err(malformed("The field 'region' must name a region."));
    }
    match project.as_str() {
        "" => return Err(Error::ims(ImsCode::IMG_0104)),
        project if !is_word(project) => return Err(Error::ims(ImsCode::IMG_0145)),
        _ => {}
    }
    if !is_word(&agency) {
        return Err(malformed("The field 'agency_name' must name an agency."));
    }
    if !vault.is_empty() && !is_word(&vault) {
        return Err(Error::ims(ImsCode::IMG_0184));
    }
    Ok(order)
}

/// Whether a region, a project, an agency or a vault can be called so.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.chars().count()) && text.chars().all(plain)
}
