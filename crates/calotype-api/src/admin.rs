//! The operator's API, `/admin/v1`: this service's own, with errors in the IMS envelope.

pub mod audit;
pub mod enterprise_projects;
pub mod jobs;
pub mod quotas;
pub mod root_key;
pub mod stores;
pub mod verify;

use calotype_core::codes::ImsCode;
use calotype_core::{Error, Result};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::list_query::{BadParameter, Params};
use crate::state::ApiState;

/// The page's length where none is asked for, in entries.
const DEFAULT_LIMIT: u32 = 100;
/// The largest page, in entries; larger limits are lowered to it.
const MAX_LIMIT: u32 = 1000;

/// The operations of the operator's API.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(
            enterprise_projects::list_enterprise_projects,
            enterprise_projects::create_enterprise_project
        ))
        .routes(routes!(enterprise_projects::enable_enterprise_project))
        .routes(routes!(enterprise_projects::disable_enterprise_project))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(
            quotas::show_quota,
            quotas::set_quota,
            quotas::reset_quota
        ))
        .routes(routes!(verify::verify))
        .routes(routes!(stores::move_image))
        .routes(routes!(stores::move_blob))
        .routes(routes!(stores::list_blobs))
        .routes(routes!(audit::show_audit_trail))
}

pub(crate) fn params(query: Option<&str>) -> Result<Params> {
    Params::parse(query).map_err(|BadParameter(message)| bad(message))
}

fn bad(message: impl Into<String>) -> Error {
    Error::invalid(message).with_code(ImsCode::IMG_0001)
}

/// A parameter read as a `T`, if it is there.
pub(crate) fn parsed<T: std::str::FromStr>(params: &Params, name: &str) -> Result<Option<T>> {
    params
        .last(name)
        .map(|text| {
            text.parse()
                .map_err(|_| bad(format!("Invalid value for the parameter '{name}'.")))
        })
        .transpose()
}

/// A page's length, between 1 and [`MAX_LIMIT`].
pub(crate) fn limit(params: &Params) -> Result<u32> {
    match parsed(params, "limit")? {
        Some(0) => Err(bad("The parameter 'limit' must be at least 1.")),
        limit => Ok(limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)),
    }
}
