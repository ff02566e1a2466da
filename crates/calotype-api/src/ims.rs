//! The IMS API: replicating an image, importing one from an object, exporting one to an object, sharing images, following the jobs, listing,
//! changing and tagging images as OTC's clients do, and what a project may have of them.

pub mod accepted;
pub mod copy;
pub mod cross_region;
pub mod export;
pub mod image_members;
pub mod import;
mod import_body;
pub mod job_document;
pub mod jobs;
pub mod list;
pub mod members;
pub mod os_versions;
mod path;
pub mod quota;
pub mod resource_tags;
pub mod safe_mode;
mod source_body;
pub mod tags;
pub mod update;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::ApiState;

/// The operations of the IMS API.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(copy::copy_image))
        .routes(routes!(copy::copy_image_in_safe_mode))
        .routes(routes!(cross_region::copy_image_to_region))
        .routes(routes!(
            members::add_members,
            members::remove_members,
            members::answer_members
        ))
        .routes(routes!(image_members::list_image_members))
        .routes(routes!(image_members::show_image_member))
        .routes(routes!(jobs::show_job))
        .routes(routes!(jobs::show_job_progress))
        .routes(routes!(list::list_cloud_images))
        .routes(routes!(update::update_cloud_image))
        .routes(routes!(os_versions::list_os_versions))
        .routes(routes!(quota::show_image_quota))
        .routes(routes!(resource_tags::find_images_by_tags))
        .merge(import::router())
        .merge(export::router())
        .merge(safe_mode::router())
        .merge(tags::router())
}
