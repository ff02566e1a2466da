//! `GET /v2/cloudimages`: images as OTC's clients list them (spec 2.1, 8).

use axum::extract::{RawQuery, State};
use calotype_core::codes::ImsCode;
use calotype_core::{Error, ErrorKind};

use crate::caller::Caller;
use crate::errors::Reply;
use crate::idempotency::json_answer;
use crate::image_page::Page;
use crate::list_query::described::{AttributeFilters, ImsFilters, RecordFilters};
use crate::list_query::{BadParameter, Params, ims};
use crate::state::ApiState;

/// Lists the images that the caller may see. There is no link to the next page: the last id is its marker.
#[utoipa::path(
    get,
    path = "/v2/cloudimages",
    operation_id = "listCloudImages",
    tag = "Images",
    params(
        ImsFilters,
        RecordFilters,
        AttributeFilters,
        ("enterprise_project_id" = Option<String>, Query, description = "0, a UUID, or all_granted_eps."),
        ("limit" = Option<u32>, Query, description = "500 by default, at most 1000."),
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
    Ok(json_answer(page.json(state.service.settings())?))
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
