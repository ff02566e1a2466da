//! What is left of the Image API v1 and v1.1 (spec 2.43 to 2.45): OTC documents three calls, for clients that still have
//! them. Each is what its successor of the second version does, in the older form.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use calotype_core::image::{Image, Visibility};
use calotype_core::query::ImageQuery;
use calotype_core::{Error, ErrorKind};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::caller::Caller;
use crate::errors::Reply;
use crate::image_v2::ImagePath;
use crate::list_query::{Params, native};
use crate::state::ApiState;

/// The parameters of the list, which mean what they mean to its successor.
const PARAMETERS: &[&str] = &[
    "container_format",
    "disk_format",
    "limit",
    "marker",
    "name",
    "size_max",
    "size_min",
    "sort_dir",
    "sort_key",
    "status",
];

/// The most bytes of a property that goes into a header: what clients take in a line.
const LONGEST_HEADER: usize = 4096;

/// The operations of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_images))
        .routes(routes!(show_image))
        .routes(routes!(delete_image))
}

/// Lists the images that the caller may see, in the form of the first version.
#[utoipa::path(
    get,
    path = "/v1.1/images/detail",
    operation_id = "listImagesV1",
    tag = "Images",
    params(
        ("name" = Option<String>, Query, description = "Images of this name."),
        ("container_format" = Option<String>, Query, description = "Images in this container format."),
        ("disk_format" = Option<String>, Query, description = "Images in this disk format."),
        ("status" = Option<String>, Query, description = "Images in this status."),
        ("size_min" = Option<i64>, Query, description = "Images of at least so many bytes."),
        ("size_max" = Option<i64>, Query, description = "Images of at most so many bytes."),
        ("changes-since" = Option<String>, Query, description = "Images that changed at this time or later."),
        ("sort_key" = Option<String>, Query, description = "created_at by default."),
        ("sort_dir" = Option<String>, Query, description = "asc or desc (default)."),
        ("limit" = Option<u32>, Query, description = "25 by default, at most 1000."),
        ("marker" = Option<String>, Query, description = "The last image of the page before."),
    ),
    responses(
        (status = 200, description = "A page of images."),
        (status = 400, description = "A parameter that can't be understood, or an unknown marker."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not list images."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
async fn list_images(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    let params = Params::parse(query.as_deref()).map_err(|bad| Error::invalid(bad.0))?;
    let params = params.iter().filter_map(|(name, value)| match name {
        "changes-since" => Some(("updated_at".to_owned(), format!("gte:{value}"))),
        _ if PARAMETERS.contains(&name) => Some((name.to_owned(), value.to_owned())),
        _ => None,
    });
    let listing = native::listing(&params.collect()).map_err(|bad| Error::invalid(bad.0))?;
    let query = |viewer| -> ImageQuery { listing.seen_by(viewer) };
    let images = state.service.list_images(&call, query).await;
    let images = images.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::invalid("The marker is not an image's id."),
        _ => error,
    })?;
    let documents: Vec<Value> = images.iter().map(|image| document(image)).collect();
    Ok(Json(json!({ "images": documents })).into_response())
}

/// Shows an image in the headers of the answer, which has no body.
#[utoipa::path(
    head,
    path = "/v1/images/{image_id}",
    operation_id = "showImageV1",
    tag = "Images",
    params(("image_id" = String, Path, description = "The image's id.")),
    responses(
        (status = 200, description = "The image, as X-Image-Meta-* headers."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "The caller may not read images."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
async fn show_image(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
) -> Reply {
    let image = state.service.show_image(&call, id).await?;
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers(&image);
    Ok(response)
}

/// Deletes an image. Its id is never used again.
#[utoipa::path(
    delete,
    path = "/v1.1/images/{image_id}",
    operation_id = "deleteImageV1",
    tag = "Images",
    params(("image_id" = String, Path, description = "The image's id.")),
    responses(
        (status = 204, description = "The image is gone."),
        (status = 401, description = "No credential, or not a good one."),
        (status = 403, description = "Another project's image, or a protected one."),
        (status = 404, description = "There is no such image that the caller may see."),
        (status = 409, description = "A job is making the image."),
        (status = 503, description = "The service can't do it now."),
    ),
    security(("token" = []), ("signature" = [])),
)]
async fn delete_image(
    State(state): State<ApiState>,
    Caller(call): Caller,
    ImagePath(id): ImagePath,
) -> Reply {
    state.service.delete_image(&call, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn document(image: &Image) -> Value {
    json!({
        "id": image.id.to_string(),
        "name": image.name,
        "status": image.status.as_str(),
        "owner": image.owner.as_str(),
        "is_public": image.visibility == Visibility::Public,
        "protected": image.protected,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "size": image.size.unwrap_or_default(),
        "virtual_size": image.virtual_size,
        "checksum": image.digests.md5,
        "created_at": image.created_at.to_micros_without_zone(),
        "updated_at": image.updated_at.to_micros_without_zone(),
        "deleted": false,
        "deleted_at": null,
        "properties": image.properties,
    })
}

/// What is unset has no header.
fn headers(image: &Image) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut tell = |name: String, value: &str| {
        let value = utf8_percent_encode(value, CONTROLS).to_string();
        let name = HeaderName::try_from(format!("x-image-meta-{name}"));
        // A property may have a name that no header can have.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    };
    if let Value::Object(document) = document(image) {
        for (name, value) in document {
            let text = match value {
                Value::Bool(true) => "True".to_owned(),
                Value::Bool(false) => "False".to_owned(),
                Value::Number(number) => number.to_string(),
                Value::String(text) => text,
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            tell(name, &text);
        }
    }
    for (name, value) in &image.properties {
        if value.len() <= LONGEST_HEADER {
            tell(format!("property-{name}"), value);
        }
    }
    if let Some(md5) = &image.digests.md5
        && let Ok(value) = HeaderValue::try_from(md5)
    {
        headers.insert(header::ETAG, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_the_list_are_described() {
        let document = serde_json::to_value(crate::openapi::document()).unwrap();
        let described = document["paths"]["/v1.1/images/detail"]["get"]["parameters"].clone();
        for name in PARAMETERS.iter().chain(&["changes-since"]) {
            let mut described = described.as_array().unwrap().iter();
            assert!(
                described.any(|parameter| parameter["name"] == *name),
                "{name}"
            );
        }
    }
}
