//! Version discovery: which versions of the API there are, for callers with and without a credential.
//!
//! The list ends where what is implemented ends, because clients turn features on by these numbers: 2.10 and later
//! bring tasks, caches and locations of their own. 2.8, several stores, is left out as Glance leaves it out where it
//! has one. 2.6, import, is there as in a Glance that has no import method: `/v2/info/import` says so.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use calotype_core::Error;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::errors::{Failure, Reply};
use crate::state::ApiState;

/// The versions, newest first. The first is the current one.
const VERSIONS: [&str; 9] = [
    "v2.9", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0",
];

/// Lists the versions of the API.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "listVersions",
    tag = "Versions",
    responses((status = 300, description = "The versions.")),
)]
pub(super) async fn root(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    choices(&state, &headers, &VERSIONS)
}

/// Lists the versions of the API, as a plain success.
#[utoipa::path(
    get,
    path = "/versions",
    operation_id = "listVersionsDirectly",
    tag = "Versions",
    responses((status = 200, description = "The versions.")),
)]
pub(super) async fn all(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    Json(versions(&state, &headers, &VERSIONS)).into_response()
}

/// Shows a version of the API, or all where it is not one of them. Words that are no version's name are not there.
#[utoipa::path(
    get,
    path = "/{version}",
    operation_id = "showVersion",
    tag = "Versions",
    params(("version" = String, Path, description = "A version, such as v2.9.")),
    responses(
        (status = 300, description = "The version, or all versions."),
        (status = 302, description = "Of v2: where it lies, for who has a credential."),
        (status = 401, description = "Of v2: no credential, or not a good one."),
        (status = 404, description = "Not the name of a version."),
    ),
)]
pub(super) async fn one(
    State(state): State<ApiState>,
    Path(version): Path<String>,
    caller: Result<Caller, Failure>,
    headers: HeaderMap,
) -> Reply {
    if !names_a_version(&version) {
        return Err(Error::not_found("The resource could not be found.").into());
    }
    if version == "v2" {
        caller?;
        let location = format!("{}/v2/", state.base_url(&headers));
        let location = HeaderValue::from_str(&location).map_err(Error::internal)?;
        return Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response());
    }
    let known = VERSIONS.iter().position(|known| *known == version);
    let shown = known.and_then(|at| VERSIONS.get(at..=at));
    Ok(choices(&state, &headers, shown.unwrap_or(&VERSIONS)))
}

/// Where the links of the versions lead: the versions again, for who has a credential (decision D22).
#[utoipa::path(
    get,
    path = "/v2/",
    operation_id = "listVersionsOfTheSecondApi",
    tag = "Versions",
    responses(
        (status = 300, description = "The versions."),
        (status = 401, description = "No credential, or not a good one."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub(super) async fn second(
    State(state): State<ApiState>,
    Caller(_): Caller,
    headers: HeaderMap,
) -> Response {
    choices(&state, &headers, &VERSIONS)
}

/// `v`, a number, and maybe a dot and another number.
fn names_a_version(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('v')
        .is_some_and(|version| match version.split_once('.') {
            Some((major, minor)) => number(major) && number(minor),
            None => number(version),
        })
}

fn choices(state: &ApiState, headers: &HeaderMap, shown: &[&str]) -> Response {
    let body = Json(versions(state, headers, shown));
    (StatusCode::MULTIPLE_CHOICES, body).into_response()
}

fn versions(state: &ApiState, headers: &HeaderMap, shown: &[&str]) -> Value {
    let href = format!("{}/v2/", state.base_url(headers));
    let shown: Vec<_> = shown
        .iter()
        .map(|id| {
            let current = VERSIONS.first() == Some(id);
            let status = if current { "CURRENT" } else { "SUPPORTED" };
            json!({ "id": id, "status": status, "links": [{ "rel": "self", "href": href }] })
        })
        .collect();
    json!({ "versions": shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versions_name_is_told_from_other_paths() {
        for text in ["v1", "v2", "v3", "v2.0", "v2.18", "v99"] {
            assert!(names_a_version(text), "{text}");
        }
        for text in ["", "v", "2", "v2.", "v.1", "v2.0.1", "vx", "versions"] {
            assert!(!names_a_version(text), "{text}");
        }
    }
}
