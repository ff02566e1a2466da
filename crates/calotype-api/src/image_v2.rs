//! The OpenStack Image API v2, as Glance's clients know it.
//!
//! What is here follows Glance in paths, statuses, headers and documents; `docs/api-compatibility.md` lists where it
//! does not, and why. The list of images is a module of its own, whose router is merged with
//! this one.

mod actions;
mod attributes;
mod bodies;
mod byte_range;
mod data;
mod discovery;
mod image_schema;
mod images;
mod members;
mod patch_body;
mod path;
mod schemas;
mod tags;
mod unread;
mod usage;
mod versions;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::ApiState;

pub(crate) use bodies::media_type;
pub(crate) use members::document as member_document;
pub(crate) use path::ImagePath;

/// The paths of this module.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(versions::root))
        .routes(routes!(versions::all))
        .routes(routes!(versions::one))
        .routes(routes!(versions::second))
        .routes(routes!(images::create))
        .routes(routes!(images::show, images::update, images::delete))
        .routes(routes!(data::upload, data::download))
        .routes(routes!(tags::add, tags::remove))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::show, members::answer, members::remove))
        .routes(routes!(actions::deactivate))
        .routes(routes!(actions::reactivate))
        .routes(routes!(schemas::image))
        .routes(routes!(schemas::images))
        .routes(routes!(schemas::member))
        .routes(routes!(schemas::members))
        .routes(routes!(discovery::import_methods))
        .routes(routes!(discovery::stores))
        .routes(routes!(discovery::stores_in_detail))
        .routes(routes!(usage::show))
}
