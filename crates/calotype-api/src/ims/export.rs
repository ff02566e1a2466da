//! `POST /v1/cloudimages/{image_id}/file`: writes an image into a bucket (spec 2.8), and its stricter sister under `/v2.1`
//! (as that of a copy, decision D19).
//!
//! The checks come in the order of the other calls: the permission before anything of the body is read, the body before the
//! path's id, the fields before the image. A refusal changes nothing.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use calotype_core::access::Action;
use calotype_core::app::{ExportOrder, Strictness};
use calotype_core::codes::ImsCode;
use calotype_core::disk::DiskFormat;
use calotype_core::object::ObjectAddress;
use calotype_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accepted::{JobAccepted, accepted_text, kept};
use super::path;
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::{IdempotencyKey, json_answer, once};
use crate::json_body::{json_object, optional_bool, optional_text, read_body};
use crate::state::ApiState;

/// The operations of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(export_image))
        .routes(routes!(export_image_in_safe_mode))
}

/// The body of a request for an export, for the API's description. Unknown fields are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ExportImageRequest {
    /// The object: `bucket:file`. The file's name has 1 to 128 letters, digits, `-`, `.` and `_`; folders may be before it.
    pub bucket_url: String,
    /// `qcow2`, `vhd`, `vmdk` or, as an extension, `raw`; `zvhd` or `zvhd2` where the image is stored so. Not with
    /// `is_quick_export`.
    pub file_format: Option<String>,
    /// Writes an image that is stored as ZVHD2 as it is, of any size.
    pub is_quick_export: Option<bool>,
}

/// Writes an image into a bucket.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/{image_id}/file",
    operation_id = "exportImage",
    tag = "Exports",
    params(
        ("image_id" = String, Path, description = "The image to export: a UUID."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = ExportImageRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The export was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not export (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 500, description = "A fault of the service (IMG.0061)."),
        (status = 503, description = "The service or the bucket can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn export_image(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    export(state, caller, key, path, body, Strictness::KeyService).await
}

/// Writes an image into a bucket in safe mode: as `exportImage`, and the caller's role must permit the actions on the image's
/// key too.
#[utoipa::path(
    post,
    path = "/v2.1/cloudimages/{image_id}/file",
    operation_id = "exportImageInSafeMode",
    tag = "Exports",
    params(
        ("image_id" = String, Path, description = "The image to export: a UUID."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = ExportImageRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The export was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not export (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 500, description = "A fault of the service (IMG.0061)."),
        (status = 503, description = "The service or the bucket can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn export_image_in_safe_mode(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    export(state, caller, key, path, body, Strictness::Caller).await
}

async fn export(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
    strictness: Strictness,
) -> Reply {
    let service = &state.service;
    service.admit_within(&call, Action::ImagesExport)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let order = parse_order(path, json_object(&body)?, strictness)?;
        let keep = kept(service, slot.as_ref(), None);
        let job = service.export(&call, &order, keep.as_deref()).await?;
        Ok(json_answer(accepted_text(&job, None)))
    })
    .await
}

fn parse_order(
    path: Result<Path<String>, PathRejection>,
    mut body: Map<String, Value>,
    strictness: Strictness,
) -> Result<ExportOrder> {
    let url = optional_text(&mut body, "bucket_url")?.unwrap_or_default();
    let format = optional_text(&mut body, "file_format")?;
    let quick = optional_bool(&mut body, "is_quick_export")?.unwrap_or(false);
    Ok(ExportOrder {
        image: path::image(path)?,
        object: ObjectAddress::parse_new(&url)?,
        format: wanted_format(format.as_deref(), quick)?,
        quick,
        strictness,
    })
}

/// The format that is wanted (readings 9.25 and 9.26): a quick export has its own.
fn wanted_format(format: Option<&str>, quick: bool) -> Result<DiskFormat> {
    let unknown = || Error::ims(ImsCode::IMG_0072);
    let format = format.filter(|format| !format.is_empty());
    match (format, quick) {
        (None, true) => Ok(DiskFormat::Zvhd2),
        (Some(_), true) => Err(Error::invalid(
            "A quick export has no file_format: it writes ZVHD2.",
        )
        .with_code(ImsCode::IMG_0072)),
        (None, false) => Err(unknown()),
        (Some(format), false) => match format.parse() {
            Ok(DiskFormat::Vdi | DiskFormat::Vhdx) | Err(_) => Err(unknown()),
            Ok(format) => Ok(format),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_export_is_of_one_format_and_the_others_are_named() {
        for name in ["qcow2", "vhd", "vmdk", "raw", "zvhd", "zvhd2"] {
            let format = wanted_format(Some(name), false).unwrap();
            assert_eq!(format.as_str(), name);
        }
        assert_eq!(wanted_format(None, true).unwrap(), DiskFormat::Zvhd2);
        assert_eq!(wanted_format(Some(""), true).unwrap(), DiskFormat::Zvhd2);
        for (format, quick) in [
            (None, false),
            (Some(""), false),
            (Some("vdi"), false),
            (Some("vhdx"), false),
            (Some("QCOW2"), false),
            (Some("iso"), false),
            (Some("zvhd2"), true),
        ] {
            let refused = wanted_format(format, quick).unwrap_err();
            assert_eq!(refused.code(), Some(ImsCode::IMG_0072), "{format:?}");
        }
    }
}
