//! `GET /v2/cloudimages`: images as OTC's clients list them (spec 2.1, 8).

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::codes::ImsCode;
use calotype_core::{Error, ErrorKind};
use serde::Serialize;

use crate::caller::Caller;
use crate::errors::Reply;
use crate::image_document::ImageDocument;
use crate::image_page::Page;
use crate::list_query::{BadParameter, Params, ims};
use crate::state::ApiState;

/// Lists the images that the caller may see. There is no link to the next page: the last id is its marker.
#[utoipa::path(
    get,
    path = "/v2/cloudimages",
    operation_id = "listCloudImages",
    tag = "Images",
    params(
        ("id" = Option<String>, Query, description = "The image with this id."),
        ("name" = Option<String>, Query, description = "Images of exactly this name."),
        ("status" = Option<String>, Query, description = "Images in this status."),
        ("owner" = Option<String>, Query, description = "Images of this project."),
        ("visibility" = Option<String>, Query, description = "public, private or shared."),
        ("member_status" = Option<String>, Query, description = "accepted (default), pending, rejected or all."),
        ("__imagetype" = Option<String>, Query, description = "gold, private or shared."),
        ("__isregistered" = Option<String>, Query, description = "true or false: whether the image has been registered."),
        ("__whole_image" = Option<String>, Query, description = "true for full-ECS images, false for the others."),
        ("__system__cmkid" = Option<String>, Query, description = "Images that this key seals."),
        ("__os_bit" = Option<String>, Query, description = "32 or 64."),
        ("__os_type" = Option<String>, Query, description = "Linux, Windows or Other."),
        ("__platform" = Option<String>, Query, description = "The operating system's platform, such as Debian."),
        ("__support_kvm" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_xen" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_largememory" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_diskintensive" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_highperformance" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_xen_gpu_type" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_kvm_gpu_type" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_xen_hana" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("__support_kvm_infiniband" = Option<String>, Query, description = "Images that have this attribute with this value."),
        ("container_format" = Option<String>, Query, description = "bare, and the other containers."),
        ("disk_format" = Option<String>, Query, description = "raw, qcow2, vhd and the other formats."),
        ("virtual_env_type" = Option<String>, Query, description = "FusionCompute, Ironic, DataImage or IsoImage."),
        ("min_disk" = Option<String>, Query, description = "Images that need exactly so many GiB of disk."),
        ("min_ram" = Option<String>, Query, description = "Images that need exactly so many MiB of memory."),
        ("protected" = Option<String>, Query, description = "true or false."),
        ("size_min" = Option<String>, Query, description = "Images of at least so many bytes."),
        ("size_max" = Option<String>, Query, description = "Images of at most so many bytes."),
        ("enterprise_project_id" = Option<String>, Query, description = "0, a UUID, or all_granted_eps."),
        ("tag" = Option<String>, Query, description = "Images with this tag; may be repeated."),
        ("created_at" = Option<String>, Query, description = "operator:time, such as gte:2024-01-02T03:04:05Z."),
        ("updated_at" = Option<String>, Query, description = "operator:time."),
        ("sort_key" = Option<String>, Query, description = "created_at by default."),
        ("sort_dir" = Option<String>, Query, description = "asc or desc (default)."),
        ("limit" = Option<u32>, Query, description = "500 by default, at most 1000."),
        ("marker" = Option<String>, Query, description = "The last image of the page before."),
    ),
    responses(
        (status = 200, description = "The images."),
        (status = 400, description = "A value that its parameter does not have (IMG.0001), or an unknown marker (IMG.0027)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not list images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_cloud_images(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    let listing = Params::parse(query.as_deref())
        .and_then(|params| ims::listing(&params))
        .map_err(refusal)?;
    let page = Page::read(&state, &call, listing)
        .await
        .map_err(unknown_marker)?;
    let images = page.documents(state.service.settings()).collect();
    Ok(Json(Images { images }).into_response())
}

#[derive(Serialize)]
struct Images<'a> {
    images: Vec<ImageDocument<'a>>,
}

pub(super) fn refusal(bad: BadParameter) -> Error {
    Error::invalid(bad.0).with_code(ImsCode::IMG_0001)
}

/// A list that can't begin after its marker is a bad request and not a missing thing: status 400 (spec 8.4).
pub(super) fn unknown_marker(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Error::invalid(ImsCode::IMG_0027.message()).with_code(ImsCode::IMG_0027)
        }
        _ => error,
    }
}
