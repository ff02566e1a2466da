//! Images from objects in buckets: `POST /v2/cloudimages/action`, `.../quickimport/action`,
//! `POST /v1/cloudimages/dataimages/action`, `POST /v1/cloudimages/action` (which one client uses and no page names), and
//! `PUT /v1/cloudimages/{image_id}/upload` (spec 2.3 to 2.5, 2.7).
//!
//! A body can ask for an image of a server or of disks too.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use calotype_core::access::Action;
use calotype_core::app::{Call, ImportOrder, Service, Strictness};
use calotype_core::object::ObjectAddress;
use calotype_core::{Error, Result, codes::ImsCode};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accepted::{JobAccepted, accepted_text, kept};
use super::import_body::{Form, order, store};
use super::path;
use super::source_body;
use super::tags::ResourceTag;
use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::idempotency::{IdempotencyKey, json_answer, once};
use crate::json_body::{json_object, optional_text, read_body};
use crate::state::ApiState;

/// What the older paths demand for the use of a key.
const LENIENT: Strictness = Strictness::KeyService;

/// The operations of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(import_image))
        .routes(routes!(import_image_by_older_path))
        .routes(routes!(import_image_quickly))
        .routes(routes!(import_data_image))
        .routes(routes!(make_whole_image))
        .routes(routes!(register_image))
}

/// The body of a request for an image of an object, or of a server or disks, for the API's description. Unknown fields are
/// ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CreateImageRequest {
    /// The image's name: 1 to 128 of letters, digits, `-`, `.`, `_` and inner spaces. Only where `data_images` alone says of
    /// what images are made can it be left out.
    pub name: Option<String>,
    /// The image's description: at most 1024 characters.
    pub description: Option<String>,
    /// The server whose system disk the image is made of. It comes before every other source.
    pub instance_id: Option<String>,
    /// The object: `bucket:object`, which may be an archive of a server's disks (OVA). It comes before disks.
    pub image_url: Option<String>,
    /// The disk that the image is made of.
    pub volume_id: Option<String>,
    /// Disks of data, of which images are made too: at most three objects beside `image_url`.
    pub data_images: Option<Vec<DataImageRequest>>,
    /// GB that a disk needs to hold the image of an object, which has to say it: 1 to 1024 (2048 for a data disk).
    pub min_disk: Option<u32>,
    /// `Linux`, `Windows` or `Other`.
    pub os_type: Option<String>,
    /// One of `GET /v1/cloudimages/os_version`, or a newer release. An ISO file needs it, and a quick import of a system
    /// disk.
    pub os_version: Option<String>,
    /// `ECS` (the default), `BMS`, `IsoImage`, `DataImage`, and the synonyms `FusionCompute` and `Ironic`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The customer's master key to seal the image under.
    pub cmk_id: Option<String>,
    /// Said of the image (`__is_config_init`); nothing in it is changed.
    pub is_config: Option<bool>,
    /// Takes an object of any size that is raw or ZVHD2.
    pub is_quick_import: Option<bool>,
    /// `bios` or `uefi`.
    pub hw_firmware_type: Option<String>,
    /// `x86` (the default) or `arm`, whose firmware is `uefi`.
    pub architecture: Option<String>,
    /// MB of memory that a server needs.
    pub min_ram: Option<u32>,
    /// MB of memory that a server has at most.
    pub max_ram: Option<u32>,
    /// The image's tags, as `key=value`. Either this or `image_tags`.
    pub tags: Option<Vec<String>>,
    /// The image's tags, with key and value apart.
    pub image_tags: Option<Vec<ResourceTag>>,
    /// The image's enterprise project; absent, empty or `0`: the default one.
    pub enterprise_project_id: Option<String>,
    /// An extension: the store for the bytes, of those that `/v2/info/stores` lists.
    pub store: Option<String>,
}

/// A disk of data. What it does not say of its image is what the request says.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct DataImageRequest {
    /// The image's name; absent beside `image_url`: the system image's, and a number.
    pub name: Option<String>,
    /// The image's description.
    pub description: Option<String>,
    /// The object that the image is made of: `bucket:object`.
    pub image_url: Option<String>,
    /// GB that a disk needs to hold the image of an object, which has to say it: 1 to 2048.
    pub min_disk: Option<u32>,
    /// Takes an object of any size that is raw or ZVHD2.
    pub is_quick_import: Option<bool>,
    /// The disk that the image is made of.
    pub volume_id: Option<String>,
    /// The image's tags, as `key=value`. Either this or `image_tags`.
    pub tags: Option<Vec<String>>,
    /// The image's tags, with key and value apart.
    pub image_tags: Option<Vec<ResourceTag>>,
}

/// The body of a request for a full-ECS image, for the API's description. Unknown fields are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct WholeImageRequest {
    /// The image's name: 1 to 128 of letters, digits, `-`, `.`, `_` and inner spaces.
    pub name: String,
    /// The image's description: at most 1024 characters.
    pub description: Option<String>,
    /// The server. Either this or `backup_id`.
    pub instance_id: Option<String>,
    /// The vault for the backup that the image is made of.
    pub vault_id: Option<String>,
    /// The backup.
    pub backup_id: Option<String>,
    /// Of which service the backup is: `CBR`, or `CSBS` (the default).
    pub whole_image_type: Option<String>,
    /// MB of memory that a server needs.
    pub min_ram: Option<u32>,
    /// MB of memory that a server has at most.
    pub max_ram: Option<u32>,
    /// The image's tags, as `key=value`. Either this or `image_tags`.
    pub tags: Option<Vec<String>>,
    /// The image's tags, with key and value apart.
    pub image_tags: Option<Vec<ResourceTag>>,
    /// The image's enterprise project; absent, empty or `0`: the default one.
    pub enterprise_project_id: Option<String>,
}

/// The body of a request to fill an image.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct RegisterImageRequest {
    /// The object: `bucket:object`.
    pub image_url: String,
    /// The key that the image is to be sealed under. An extension: the API's own form has none, and so no way to fill an image under
    /// a key.
    pub cmk_id: Option<String>,
    /// An extension: the store for the bytes, of those that `/v2/info/stores` lists.
    pub store: Option<String>,
}

/// What a request for an image of an object is answered with, for the API's description.
#[derive(utoipa::IntoResponses)]
pub enum ImportResponses {
    /// The import was accepted.
    #[response(status = 200)]
    Accepted(JobAccepted),
    /// The request breaks a rule; the code says which.
    #[response(status = 400)]
    Refused,
    /// No credential, or not a good one (IMG.0087).
    #[response(status = 401)]
    Unauthorized,
    /// The caller may not make such images (IMG.0026).
    #[response(status = 403)]
    Forbidden,
    /// The Idempotency-Key was used with another body.
    #[response(status = 409)]
    Conflict,
    /// A fault of the service (IMG.0061).
    #[response(status = 500)]
    Fault,
    /// The service or the bucket can't do it now (IMG.0061).
    #[response(status = 503)]
    Unavailable,
}

/// Makes an image of an object in a bucket.
#[utoipa::path(
    post,
    path = "/v2/cloudimages/action",
    operation_id = "importImage",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_image(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Any, LENIENT).await
}

/// Makes an image of an object by the path that some clients use for data disks: without a `type` that says otherwise it
/// is one.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/action",
    operation_id = "importImageByOlderPath",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_image_by_older_path(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Older, LENIENT).await
}

/// Makes an image of a large object, raw or ZVHD2.
#[utoipa::path(
    post,
    path = "/v2/cloudimages/quickimport/action",
    operation_id = "importImageQuickly",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_image_quickly(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Quick, LENIENT).await
}

/// Makes an image of a data disk of an object.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/dataimages/action",
    operation_id = "importDataImage",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = CreateImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn import_data_image(
    state: State<ApiState>,
    caller: Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    create(state, caller, key, body, Form::Data, LENIENT).await
}

/// Makes a full-ECS image of a server or of a backup of one.
#[utoipa::path(
    post,
    path = "/v1/cloudimages/wholeimages/action",
    operation_id = "makeWholeImage",
    tag = "Imports",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours.")),
    request_body(content = WholeImageRequest, content_type = "application/json"),
    responses(ImportResponses),
    security(("token" = []), ("signature" = [])),
)]
pub async fn make_whole_image(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.admit_within(&call, Action::WholeImagesCreate)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let order = source_body::whole(json_object(&body)?)?;
        let job = service.image_of_source(&call, &order).await?;
        Ok(json_answer(accepted_text(&job, None)))
    })
    .await
}

/// Gives an image that waits for its bytes those of an object in a bucket.
#[utoipa::path(
    put,
    path = "/v1/cloudimages/{image_id}/upload",
    operation_id = "registerImage",
    tag = "Imports",
    params(
        ("image_id" = String, Path, description = "An image in status `queued`: a UUID."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, caller and body give the same answer for 24 hours."),
    ),
    request_body(content = RegisterImageRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The import was accepted.", body = JobAccepted),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not fill images (IMG.0026)."),
        (status = 404, description = "There is no such image for the caller (IMG.0027)."),
        (status = 409, description = "The Idempotency-Key was used with another body."),
        (status = 500, description = "A fault of the service (IMG.0061)."),
        (status = 503, description = "The service or the bucket can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn register_image(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    let service = &state.service;
    service.admit_within(&call, Action::ImagesUpload)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let mut body = json_object(&body)?;
        let url = optional_text(&mut body, "image_url")?.unwrap_or_default();
        let id = path::image(path)?;
        let object = ObjectAddress::parse(&url)?;
        let cmk = optional_text(&mut body, "cmk_id")?;
        let store = store(&mut body)?;
        let (cmk, store) = (cmk.as_deref(), store.as_deref());
        let keep = kept(service, slot.as_ref(), None);
        let job = service
            .register(&call, id, &object, cmk, store, keep.as_deref())
            .await?;
        Ok(json_answer(accepted_text(&job, None)))
    })
    .await
}

/// Makes an image as a body to one of the paths asks for.
pub(super) async fn create(
    State(state): State<ApiState>,
    Caller(call): Caller,
    key: Result<IdempotencyKey, Failure>,
    body: Body,
    form: Form,
    strictness: Strictness,
) -> Reply {
    let service = &state.service;
    admit(service, &call, form)?;
    let body = read_body(&state, body).await?;
    let slot = key?.slot(&call, &body);
    once(service, slot.as_ref(), async {
        let mut body = json_object(&body)?;
        if matches!(form, Form::Any | Form::Older)
            && let Some(order) = source_body::server_or_disks(&mut body)?
        {
            let job = service.image_of_source(&call, &order).await?;
            return Ok(json_answer(accepted_text(&job, None)));
        }
        let order = order(body, form, strictness)?;
        check_order(service, &call, &order)?;
        let keep = kept(service, slot.as_ref(), None);
        let job = service.import(&call, &order, keep.as_deref()).await?;
        Ok(json_answer(accepted_text(&job, None)))
    })
    .await
}

/// The first check: whether the caller may take any of the actions that a request to this path can mean.
fn admit(service: &Service, call: &Call, form: Form) -> Result<()> {
    let data = || service.admit_within(call, Action::DataImagesCreate);
    match form {
        Form::Data => data(),
        Form::Any => service.admit_within(call, Action::ServerImagesCreate),
        Form::Quick | Form::Older => service
            .admit_within(call, Action::ServerImagesCreate)
            .or_else(|_| data()),
    }
}

/// Checks that the caller may ask for this, and that a version that is there says something.
fn check_order(service: &Service, call: &Call, order: &ImportOrder) -> Result<()> {
    service.admit_within(call, order.kind.action())?;
    match &order.os_version {
        Some(version) if version.is_empty() => Err(Error::ims(ImsCode::IMG_0056)),
        _ => Ok(()),
    }
}
