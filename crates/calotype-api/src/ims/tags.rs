//! The tags of images: set and read one by one, in batches, and over all images (spec 2.9, 2.10, 2.12 to 2.16).

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::app::Call;
use calotype_core::codes::ImsCode;
use calotype_core::id::{ImageId, ProjectId};
use calotype_core::image_tag::Tag;
use calotype_core::{Error, Result};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::{refusal, unknown_marker};
use super::path::{check_project, image_id};
use crate::caller::Caller;
use crate::errors::Reply;
use crate::json_body::{json_object, malformed, optional_text, read_body};
use crate::list_query::described::{AttributeFilters, ImsFilters, RecordFilters};
use crate::list_query::{Params, ims};
use crate::state::ApiState;

/// The longest key of a tag that is taken away, in characters (spec 2.12). Keys that are set are shorter.
const LONGEST_REMOVED_KEY: usize = 127;
/// The longest value beside such a key.
const LONGEST_REMOVED_VALUE: usize = 255;

/// The operations of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_tags_of_images, put_image_tag))
        .routes(routes!(list_image_tags, add_image_tag))
        .routes(routes!(change_image_tags))
        .routes(routes!(delete_image_tag))
        .routes(routes!(delete_image_tags))
        .routes(routes!(list_project_tags))
        // A tag may have the key that the path of a batch ends with.
        .route(
            "/v2/{project_id}/images/{image_id}/tags/action",
            axum::routing::delete(delete_image_tag_of_key_action),
        )
}

/// A tag, for the API's description.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ResourceTag {
    /// 1 to 36 characters, none of them `=`.
    pub key: String,
    /// At most 43 characters.
    pub value: String,
}

/// The body of a request that tags one image by the older form.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct PutImageTag {
    /// The image.
    pub image_id: String,
    /// `key=value`, `key.value` or a key alone, of letters, digits, `_` and `-`. Either this or `image_tag`.
    pub tag: Option<String>,
    /// The same, with key and value apart.
    pub image_tag: Option<ResourceTag>,
}

/// The body of a request that tags one image.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct AddImageTag {
    /// The tag.
    pub tag: ResourceTag,
}

/// A tag that is taken away, or set beside others, for the API's description.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ChangedTag {
    /// 1 to 36 characters, none of them `=`; of a tag that is taken away 1 to 127 of any kind.
    pub key: String,
    /// At most 43 characters. Of a tag that is taken away it can be left out, has at most 255, and means nothing.
    pub value: Option<String>,
}

/// The body of a request that sets or takes away several tags.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ChangeImageTags {
    /// `create` or `delete`.
    pub action: String,
    /// The tags.
    pub tags: Vec<ChangedTag>,
}

/// The body of a request that takes several tags away.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct DeleteImageTags {
    /// The tags, of which the key counts.
    pub tags: Vec<ChangedTag>,
}

/// Tags an image by the older form, in the place of a tag that has the same key.
#[utoipa::path(
    put,
    path = "/v1/cloudimages/tags",
    operation_id = "putImageTag",
    tag = "Image tags",
    request_body(content = PutImageTag, content_type = "application/json"),
    responses(
        (status = 204, description = "The image has the tag."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not read or change images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "Others kept changing the image (IMG.0035)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn put_image_tag(
    State(state): State<ApiState>,
    Caller(call): Caller,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.admit(&call, Action::ImagesGet)?;
    service.admit(&call, Action::ImagesUpdate)?;
    let mut body = json_object(&read_body(&state, body).await?)?;
    let image = optional_text(&mut body, "image_id")?.unwrap_or_default();
    let text = optional_text(&mut body, "tag")?;
    let object = body.remove("image_tag").filter(|tag| !tag.is_null());
    let image = image_id(&image)?;
    let tag = match (text, object) {
        (Some(text), None) => Tag::parse(&text)?,
        (None, Some(object)) => tag_of(&object)?,
        _ => return Err(malformed("Either 'tag' or 'image_tag' must be given.").into()),
    };
    service.set_image_tags(&call, image, &[tag]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Lists the tags of the images that a list with the same parameters finds. The limit counts tags.
#[utoipa::path(
    get,
    path = "/v1/cloudimages/tags",
    operation_id = "listTagsOfImages",
    tag = "Image tags",
    params(
        ImsFilters,
        RecordFilters,
        AttributeFilters,
        ("enterprise_project_id" = Option<String>, Query, description = "0, or a UUID."),
        ("limit" = Option<u32>, Query, description = "500 tags by default, at most 1000."),
    ),
    responses(
        (status = 200, description = "The tags, sorted, each once."),
        (status = 400, description = "A value that its parameter does not have (IMG.0001), or an unknown marker (IMG.0027)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not list images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_tags_of_images(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    state.service.admit(&call, Action::ImagesList)?;
    let params = Params::parse(query.as_deref()).map_err(refusal)?;
    if params.last("enterprise_project_id") == Some("all_granted_eps") {
        return Err(malformed("all_granted_eps has no meaning here.").into());
    }
    let listing = ims::listing(&params).map_err(refusal)?;
    let found = state
        .service
        .tags_of_images(&call, |viewer| listing.seen_by(viewer));
    let texts = found.await.map_err(unknown_marker)?;
    // As it is set, whichever API set it.
    let tags: BTreeSet<String> = texts.iter().map(|text| Tag::of(text).to_string()).collect();
    Ok(Json(json!({ "tags": tags })).into_response())
}

/// Shows an image's tags.
#[utoipa::path(
    get,
    path = "/v2/{project_id}/images/{image_id}/tags",
    operation_id = "listImageTags",
    tag = "Image tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image: a UUID."),
    ),
    responses(
        (status = 200, description = "The tags."),
        (status = 400, description = "The image's id is malformed (IMG.0066), or the project is not the credential's (IMG.0030)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not list images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_image_tags(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: ImagePath,
) -> Reply {
    state.service.admit(&call, Action::ImagesList)?;
    let image = image(&state, &call, path)?;
    let tags = state.service.image_tags(&call, image).await?;
    let tags: Vec<Value> = tags.iter().map(tag_document).collect();
    Ok(Json(json!({ "tags": tags })).into_response())
}

/// Tags an image, in the place of a tag that has the same key.
#[utoipa::path(
    post,
    path = "/v2/{project_id}/images/{image_id}/tags",
    operation_id = "addImageResourceTag",
    tag = "Image tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image: a UUID."),
    ),
    request_body(content = AddImageTag, content_type = "application/json"),
    responses(
        (status = 204, description = "The image has the tag."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not change images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "Others kept changing the image (IMG.0035)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn add_image_tag(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: ImagePath,
    body: Body,
) -> Reply {
    let (image, body) = change(&state, &call, path, body).await?;
    let tag = tag_of(body.get("tag").unwrap_or(&Value::Null))?;
    state.service.set_image_tags(&call, image, &[tag]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Gives an image several tags, or takes several away.
#[utoipa::path(
    post,
    path = "/v2/{project_id}/images/{image_id}/tags/action",
    operation_id = "changeImageTags",
    tag = "Image tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image: a UUID."),
    ),
    request_body(content = ChangeImageTags, content_type = "application/json"),
    responses(
        (status = 204, description = "Done."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not change images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "Others kept changing the image (IMG.0035)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn change_image_tags(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: ImagePath,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.admit(&call, Action::ImagesUpdate)?;
    let mut body = json_object(&read_body(&state, body).await?)?;
    let action = optional_text(&mut body, "action")?;
    let image = image(&state, &call, path)?;
    match action.as_deref() {
        Some("create") => {
            let tags: Result<Vec<Tag>> = listed_tags(&body)?.iter().map(tag_of).collect();
            service.set_image_tags(&call, image, &tags?).await?;
        }
        Some("delete") => {
            let keys = removed_keys(&body)?;
            service.remove_image_tags(&call, image, &keys).await?;
        }
        _ => return Err(malformed("The action is create or delete.").into()),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes several tags from an image, by their keys; as `changeImageTags` does it.
#[utoipa::path(
    delete,
    path = "/v1/{project_id}/cloudimages/{image_id}/tags/delete",
    operation_id = "deleteImageTags",
    tag = "Image tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image: a UUID."),
    ),
    request_body(content = DeleteImageTags, content_type = "application/json"),
    responses(
        (status = 204, description = "Done."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not change images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "Others kept changing the image (IMG.0035)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn delete_image_tags(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: ImagePath,
    body: Body,
) -> Reply {
    let (image, body) = change(&state, &call, path, body).await?;
    let keys = removed_keys(&body)?;
    state.service.remove_image_tags(&call, image, &keys).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes a tag from an image, by its key.
#[utoipa::path(
    delete,
    path = "/v2/{project_id}/images/{image_id}/tags/{key}",
    operation_id = "deleteImageResourceTag",
    tag = "Image tags",
    params(
        ("project_id" = String, Path, description = "The project that the credential is scoped to."),
        ("image_id" = String, Path, description = "The image: a UUID."),
        ("key" = String, Path, description = "The tag's key."),
    ),
    responses(
        (status = 204, description = "The image does not have the tag any more."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not change images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027), or it has no such tag (IMG.0121)."),
        (status = 409, description = "Others kept changing the image (IMG.0035)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn delete_image_tag(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Reply {
    state.service.admit(&call, Action::ImagesUpdate)?;
    let Path((project, image, key)) = path.map_err(|_| Error::ims(ImsCode::IMG_0066))?;
    delete_tag(&state, &call, &project, &image, &key).await
}

async fn delete_image_tag_of_key_action(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: ImagePath,
) -> Reply {
    state.service.admit(&call, Action::ImagesUpdate)?;
    let Path((project, image)) = path.map_err(|_| Error::ims(ImsCode::IMG_0066))?;
    delete_tag(&state, &call, &project, &image, "action").await
}

async fn delete_tag(state: &ApiState, call: &Call, project: &str, image: &str, key: &str) -> Reply {
    let image = image_id(image)?;
    check_project(state, call, project)?;
    state.service.remove_image_tag(call, image, key).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Lists the tags of the project's images.
#[utoipa::path(
    get,
    path = "/v2/{project_id}/images/tags",
    operation_id = "listProjectTags",
    tag = "Image tags",
    params(("project_id" = String, Path, description = "The project that the credential is scoped to.")),
    responses(
        (status = 200, description = "The keys, each with the values that it has."),
        (status = 400, description = "The project is not the credential's (IMG.0030)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not list images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_project_tags(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
) -> Reply {
    state.service.admit(&call, Action::ImagesList)?;
    let project = project(&state, &call, path)?;
    let tags = state.service.project_tags(&call, &project).await?;
    let tags = tags
        .iter()
        .map(|(key, values)| json!({ "key": key, "values": values }));
    Ok(Json(json!({ "tags": tags.collect::<Vec<_>>() })).into_response())
}

/// The project and the image of a path.
pub type ImagePath = Result<Path<(String, String)>, PathRejection>;

/// The image that a change is about, and the change's body, of who may change images at all.
async fn change(
    state: &ApiState,
    call: &Call,
    path: ImagePath,
    body: Body,
) -> Result<(ImageId, Map<String, Value>)> {
    state.service.admit(call, Action::ImagesUpdate)?;
    let body = json_object(&read_body(state, body).await?)?;
    Ok((image(state, call, path)?, body))
}

/// The image of a path, whose project is the caller's.
fn image(state: &ApiState, call: &Call, path: ImagePath) -> Result<ImageId> {
    let Path((project, image)) = path.map_err(|_| Error::ims(ImsCode::IMG_0066))?;
    let image = image_id(&image)?;
    check_project(state, call, &project)?;
    Ok(image)
}

/// The project of a path, which is the caller's, or any for an administrator.
pub(super) fn project(
    state: &ApiState,
    call: &Call,
    path: Result<Path<String>, PathRejection>,
) -> Result<ProjectId> {
    let project = path.map(|Path(project)| project).unwrap_or_default();
    check_project(state, call, &project)?;
    project.parse().map_err(|_| Error::ims(ImsCode::IMG_0030))
}

/// A tag as answers have it.
pub(super) fn tag_document(tag: &Tag) -> Value {
    json!({ "key": tag.key(), "value": tag.value() })
}

/// The tags of a body.
fn listed_tags(body: &Map<String, Value>) -> Result<&[Value]> {
    match body.get("tags") {
        Some(Value::Array(tags)) if !tags.is_empty() => Ok(tags),
        _ => Err(malformed("The field 'tags' must be a list of tags.")),
    }
}

/// The tag to set that an object is: it has a value, which may be empty (reading 9.48).
pub(super) fn tag_of(object: &Value) -> Result<Tag> {
    match (field(object, "key")?, field(object, "value")?) {
        (Some(key), Some(value)) => Tag::new(key, value),
        _ => Err(Error::ims(ImsCode::IMG_0115)),
    }
}

/// The keys of the tags to take away. Their values are checked and mean nothing (reading 9.46).
fn removed_keys(body: &Map<String, Value>) -> Result<Vec<String>> {
    let key = |object: &Value| {
        let key = field(object, "key")?.unwrap_or_default();
        let value = field(object, "value")?.unwrap_or_default();
        let length = key.chars().count();
        if !(1..=LONGEST_REMOVED_KEY).contains(&length)
            || value.chars().count() > LONGEST_REMOVED_VALUE
        {
            return Err(Error::ims(ImsCode::IMG_0115));
        }
        Ok(key.to_owned())
    };
    listed_tags(body)?.iter().map(key).collect()
}

/// A field of a tag, which is a text, absent, or null, which means absent.
fn field<'a>(object: &'a Value, name: &str) -> Result<Option<&'a str>> {
    let object = object
        .as_object()
        .ok_or_else(|| malformed("A tag is an object with a key and a value."))?;
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(&format!("A tag's {name} must be a string."))),
    }
}
