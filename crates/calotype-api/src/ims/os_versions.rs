//! `GET /v1/cloudimages/os_version`: the operating systems that an image may be said to hold (spec 2.23, 4.6).

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse as _;
use calotype_core::Error;
use calotype_core::access::Action;
use calotype_core::app::{OsVersion, os_versions};
use calotype_core::codes::ImsCode;
use serde_json::{Value, json};

use super::list::refusal;
use crate::caller::Caller;
use crate::errors::Reply;
use crate::list_query::Params;
use crate::state::ApiState;

/// Lists the versions of operating systems, platform by platform.
#[utoipa::path(
    get,
    path = "/v1/cloudimages/os_version",
    operation_id = "listOsVersions",
    tag = "Images",
    params(("tag" = Option<String>, Query, description = "bms_otc or uefi: the versions of 64 bits.")),
    responses(
        (status = 200, description = "The platforms, each with its versions."),
        (status = 400, description = "The tag is another one (IMG.0001)."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not list images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn list_os_versions(
    State(state): State<ApiState>,
    Caller(call): Caller,
    RawQuery(query): RawQuery,
) -> Reply {
    state.service.admit(&call, Action::ImagesList)?;
    let params = Params::parse(query.as_deref()).map_err(refusal)?;
    let mut versions = os_versions();
    match params.last("tag") {
        None => {}
        // Neither boots what is narrower.
        Some("bms_otc" | "uefi") => versions.retain(|version| version.bits == 64),
        Some(_) => {
            let error = Error::invalid("The tag is bms_otc or uefi.");
            return Err(error.with_code(ImsCode::IMG_0001).into());
        }
    }
    Ok(Json(documents(&versions)).into_response())
}

fn documents(versions: &[OsVersion]) -> Value {
    let platforms = versions.chunk_by(|one, next| one.platform == next.platform);
    let documents = platforms.map(|versions| {
        let list: Vec<Value> = versions.iter().map(document).collect();
        let platform = versions.first().map(|version| version.platform);
        json!({ "platform": platform, "version_list": list })
    });
    documents.collect()
}

fn document(version: &OsVersion) -> Value {
    json!({
        "platform": version.platform,
        "os_version_key": version.version,
        "os_version": version.version,
        "os_bit": version.bits,
        "os_type": version.system,
    })
}
