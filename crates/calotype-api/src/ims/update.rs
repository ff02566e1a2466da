//! `PATCH /v2/cloudimages/{image_id}`: changes an image as OTC's clients do (spec 2.2).
//!
//! The body is read as a JSON patch whatever its media type says, as clients send `application/json`; only Glance's older
//! form has to be named to be understood. Numbers may come as texts, and texts as numbers (readings 9.16 and 9.30).

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::app::{Change, Setting, check_patchable};
use calotype_core::codes::ImsCode;
use calotype_core::{Error, Result};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::path;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::image_document::ImageDocument;
use crate::image_v2::media_type;
use crate::json_body::{json_value, malformed, read_body};
use crate::json_patch::{Form, Operation, Verb, operations};
use crate::state::ApiState;

/// An operation of an update, for the API's description.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct UpdateOperation {
    /// `add`, `replace` or `remove`.
    pub op: String,
    /// `/` and the attribute's name, in lower case.
    pub path: String,
    /// The attribute's value, a string or an integer; `remove` needs none.
    pub value: Option<Value>,
}

/// Changes an image, wholly or not at all.
#[utoipa::path(
    patch,
    path = "/v2/cloudimages/{image_id}",
    operation_id = "updateCloudImage",
    tag = "Images",
    params(("image_id" = String, Path, description = "The image to change: a UUID.")),
    request_body(content = Vec<UpdateOperation>, content_type = "application/json"),
    responses(
        (status = 200, description = "The image as it now is."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not change images, or not move them between enterprise projects (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "Others kept changing the image (IMG.0035)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn update_cloud_image(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.admit_within(&call, Action::ImagesUpdate)?;
    let patch = json_value(&read_body(&state, body).await?)?;
    if !patch.is_array() {
        return Err(malformed("The request's body must be a JSON array.").into());
    }
    let id = path::image(path)?;
    let form = Form::of(&media_type(&headers)).unwrap_or(Form::V21);
    let changes = changes(form, &patch)?;
    let image = service.update_cloud_image(&call, id, &changes).await?;
    Ok(Json(ImageDocument::new(&image, service.settings())).into_response())
}

/// The changes that an update asks for.
///
/// # Errors
/// IMG.0001 where the patch is malformed, empty, or names what can't be changed; IMG.0055 and IMG.0155 for values.
fn changes(form: Form, patch: &Value) -> Result<Vec<Change>> {
    let operations = operations(form, patch).map_err(|error| error.with_code(ImsCode::IMG_0001))?;
    if operations.is_empty() {
        return Err(malformed("An update has at least one operation."));
    }
    operations.into_iter().map(change).collect()
}

fn change(operation: Operation<'_>) -> Result<Change> {
    let name = operation.name;
    check_patchable(&name)?;
    let Some(value) = operation.value.filter(|_| operation.verb != Verb::Remove) else {
        return Ok(Change::Remove(name));
    };
    let setting = setting(&name, value)?;
    Ok(match operation.verb {
        Verb::Replace => Change::Replace(setting),
        Verb::Add | Verb::Remove => Change::Set(setting),
    })
}

fn setting(name: &str, value: &Value) -> Result<Setting> {
    Ok(match name {
        "name" => Setting::Name(Some(text(name, value)?.to_owned())),
        "min_ram" => Setting::MinRam(mebibytes(value)?),
        "max_ram" => property(name, mebibytes(value)?.to_string()),
        "enterprise_project_id" => {
            let id = text(name, value)?.parse();
            Setting::EnterpriseProject(id.map_err(|_| Error::ims(ImsCode::IMG_0155))?)
        }
        "visibility" => {
            let visibility = text(name, value)?.parse();
            Setting::Visibility(visibility.map_err(|_| malformed("There is no such visibility."))?)
        }
        "tags" => Setting::Tags(texts(name, value)?),
        _ => match value {
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                property(name, number.to_string())
            }
            _ => property(name, text(name, value)?.to_owned()),
        },
    })
}

fn property(name: &str, value: String) -> Setting {
    Setting::Property {
        name: name.to_owned(),
        value,
    }
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str> {
    let text = value.as_str();
    text.ok_or_else(|| malformed(&format!("The value of '{name}' must be a string.")))
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>> {
    let texts = value.as_array().and_then(|list| {
        let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
        texts.collect()
    });
    texts.ok_or_else(|| malformed(&format!("The value of '{name}' must be a list of strings.")))
}

/// An amount of memory in MiB, as a number or as its decimal text.
fn mebibytes(value: &Value) -> Result<u32> {
    let amount = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => return Err(malformed("An amount of memory is an integer.")),
    };
    let amount = amount.and_then(|amount| i32::try_from(amount).ok());
    let amount = amount.and_then(|amount| u32::try_from(amount).ok());
    amount.ok_or_else(|| Error::ims(ImsCode::IMG_0055))
}
